"""Token embedding whose table is also the output head."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from hope_jax.config import ModelConfig
from hope_jax.layers.linear import compute_dtype, constrain, cut_normal, einsum
from hope_jax.layers.per_device import places
from hope_jax.parallel.rules import parts


class Embed(nn.Module):
    """One table for reading and predicting tokens.

    `init_std` is small enough that the first logits are near zero: the first loss is
    about `ln(vocab_size)`.
    """

    config: ModelConfig

    def setup(self):
        shape, axes = (self.config.vocab_size, self.config.dim), ("vocab", "embed")
        init = nn.with_logical_partitioning(cut_normal(self.config.init_std), axes)
        self.table_WD = self.param("table", init, shape, jnp.float32)

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        """Vectors of the tokens, `x_BTD` in the compute type; NaN for ids past the table."""
        return look_up(self.table_WD, tokens_BT).astype(compute_dtype(self.config))

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Scores of the next token, `logits_BTW` in float32."""
        table_WD = self.table_WD.astype(x_BTD.dtype)
        table_WD = constrain(constrain(table_WD, ("vocab", "embed")), ("vocab", None))
        return einsum("btd,wd->btw", x_BTD, table_WD, result=jnp.float32)


def look_up(table_WD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
    """Rows of the table, `[B, T, D]`; NaN for ids past it.

    On a mesh every device looks up its rows of the batch in its part of the vocabulary. Left
    to the compiler, the gradient gathers the tokens' gradients of all devices, which are
    larger than the table. float32, because such a gradient adds up over all places of a
    token.
    """
    mesh = jax.sharding.get_abstract_mesh()
    rows, width, vocab = (places(name) for name in ("batch", "embed", "vocab"))
    shares = zip((tokens_BT.shape[0], *table_WD.shape), (rows, vocab, width), strict=True)
    alone = parts(mesh, (*rows, *width, *vocab)) == 1
    if alone or any(n % parts(mesh, axes) for n, axes in shares):
        return jnp.take(table_WD, tokens_BT, axis=0)
    local = functools.partial(_look_up_here, words=table_WD.shape[0], width=width, vocab=vocab)
    return jax.shard_map(
        local,
        in_specs=(PartitionSpec(vocab, width), PartitionSpec(rows)),
        out_specs=PartitionSpec(rows),
        axis_names={*rows, *width, *vocab},
        check_vma=False,
    )(table_WD, tokens_BT)


def _look_up_here(table_WD, tokens_BT, words, width, vocab):
    table_WD = jax.lax.all_gather(table_WD, width, axis=1, tiled=True)
    here = table_WD.shape[0]
    if here == words:
        return jnp.take(table_WD, tokens_BT, axis=0)
    tokens_BT = jnp.where(tokens_BT < 0, tokens_BT + words, tokens_BT)  # as `take` has it
    ids_BT = tokens_BT - here * jax.lax.axis_index(vocab)
    found_BT = (ids_BT >= 0) & (ids_BT < here)
    x_BTD = jnp.take(table_WD, jnp.where(found_BT, ids_BT, 0), axis=0)
    x_BTD = jax.lax.psum(jnp.where(found_BT[..., None], x_BTD, 0), vocab)
    known_BT = (tokens_BT >= 0) & (tokens_BT < words)
    return jnp.where(known_BT[..., None], x_BTD, jnp.nan)
