"""Token embedding, and the head that predicts tokens: the same table, or one of its own."""

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
    """One table for reading and predicting tokens, or two.

    `init_std` is small enough that the first logits are near zero: the first loss is
    about `ln(vocab_size)`. Rows that pad the table (`vocab_multiple`) start at zero and stay
    there.
    """

    config: ModelConfig

    def setup(self):
        shape, axes = (self.config.vocab_rows, self.config.dim), ("vocab", "embed")
        init = nn.with_logical_partitioning(self._first_table, axes)
        self.table_WD = self.param("table", init, shape, jnp.float32)
        tied = self.config.tied_head
        self.head_WD = self.table_WD if tied else self.param("head", init, shape, jnp.float32)

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        """Vectors of the tokens, `x_BTD` in the compute type; NaN for ids out of range."""
        x_BTD = look_up(self.table_WD, tokens_BT)
        if self.config.vocab_rows > self.config.vocab_size:
            x_BTD = jnp.where(tokens_BT[..., None] < self.config.vocab_size, x_BTD, jnp.nan)
        return x_BTD.astype(compute_dtype(self.config))

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Scores of the next token, `logits_BTW` in float32; -inf for ids that pad."""
        head_WD = self.head_WD.astype(x_BTD.dtype)
        head_WD = constrain(constrain(head_WD, ("vocab", "embed")), ("vocab", None))
        logits_BTW = einsum("btd,wd->btw", x_BTD, head_WD, result=jnp.float32)
        return without_padding(self.config, logits_BTW)

    def _first_table(self, key, shape, dtype):
        """As without padding, with rows of zeros below."""
        words = self.config.vocab_size
        table_WD = cut_normal(self.config.init_std)(key, (words, *shape[1:]), dtype)
        return jnp.pad(table_WD, ((0, shape[0] - words), (0, 0)))


def without_padding(config: ModelConfig, logits_W: jax.Array) -> jax.Array:
    """Scores `[..., vocab_rows]` with minus infinity for the ids that pad the vocabulary.

    >>> config = ModelConfig(vocab_size=3, vocab_multiple=4)
    >>> without_padding(config, jnp.zeros(4)).tolist()
    [0.0, 0.0, 0.0, -inf]
    """
    if config.vocab_rows == config.vocab_size:
        return logits_W
    ids_W = jax.lax.broadcasted_iota(jnp.int32, logits_W.shape, logits_W.ndim - 1)
    return jnp.where(ids_W < config.vocab_size, logits_W, -jnp.inf)


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
