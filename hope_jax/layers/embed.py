"""Token embedding whose table is also the output head."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.layers.linear import compute_dtype, einsum, weight


class Embed(nn.Module):
    """One table for reading and predicting tokens.

    `init_std` is small enough that the first logits are near zero: the first loss is
    about `ln(vocab_size)`.
    """

    config: ModelConfig

    def setup(self):
        shape = (self.config.vocab_size, self.config.dim)
        axes, std = ("vocab", "embed"), self.config.init_std
        # float32 because the gradient of a lookup adds up over all places of a token
        self.table_WD = weight(self, "table", shape, axes, std, jnp.float32)

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        """Vectors of the tokens, `x_BTD` in the compute type; NaN for ids past the table."""
        x_BTD = jnp.take(self.table_WD, tokens_BT, axis=0)
        return x_BTD.astype(compute_dtype(self.config))

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Scores of the next token, `logits_BTW` in float32."""
        return einsum("btd,wd->btw", x_BTD, self.table_WD, result=jnp.float32)
