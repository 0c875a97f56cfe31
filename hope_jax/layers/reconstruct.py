"""All tokens of a text from the vector at its last one."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.layers.linear import compute_dtype, einsum, weight

LONGEST_WAVE = 10_000.0


class Reconstruct(nn.Module):
    """A two-layer network of the last vector and of a place, for every place of the text.

    Nothing but the last vector tells of the text: how well its tokens are told back is how
    much a model packs into one (compression, a task of Poli et al. 2024, arXiv 2403.17844).

    >>> config = ModelConfig(dim=8)
    >>> x_BTD = jnp.zeros((2, 5, 8))
    >>> Reconstruct(config).init_with_output(jax.random.key(0), x_BTD)[0].shape
    (2, 5, 8)
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """`y_BTD` for every place, from `x_BTD` at the last one."""
        dim, hidden = self.config.dim, 2 * self.config.dim
        dtype = compute_dtype(self.config)
        w_in = weight(self, "w_in", (dim, hidden), ("embed", "mlp"), dim**-0.5)
        w_out = weight(self, "w_out", (hidden, dim), ("mlp", "embed"), hidden**-0.5)
        places_TD = sinusoids(x_BTD.shape[1], dim).astype(dtype)
        at_BTD = x_BTD[:, -1:] + places_TD[None]
        h_BTH = jax.nn.gelu(einsum("btd,dh->bth", at_BTD, w_in))
        return einsum("bth,hd->btd", h_BTH, w_out)


def sinusoids(length: int, dim: int) -> jax.Array:
    """Sines and cosines of the place, `[T, D]`, from a wave of 2 pi tokens to a long one.

    >>> sinusoids(3, 4).shape
    (3, 4)
    """
    half = -(-dim // 2)
    rates = LONGEST_WAVE ** (-jnp.arange(half) / half)
    angles = jnp.arange(length)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)[:, :dim]
