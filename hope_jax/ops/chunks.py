"""Scanning a stream in chunks when some of what a chunk sees is from its start.

Memories whose gradients are taken at the state at the start of a chunk (Eq. 90 of the paper;
Behrouz et al. 2025, Titans, section 3.2; Sun et al. 2024, mini-batches) have two sets of
weights: those that run, and those that the open chunk started from. Chunks are counted from
the start of the stream, so a piece of text may begin and end anywhere inside of one: its
tokens are laid out behind as many empty slots as the open chunk has tokens, and slots
without a token are marked as not valid.

Arrays here are `[B, H, T, ...]`, time is axis 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.recompute import Remat, scan_chunks


@flax.struct.dataclass
class FastWeights:
    """Fast weights of some memories: trees of `[B, H, ...]` float32.

    Attributes:
      running: the weights after the last token.
      frozen: the weights at the start of the chunk that the next token belongs to.
      momentum: running momentum, or None.
    """

    running: Any
    frozen: Any
    momentum: Any


@flax.struct.dataclass
class Slots:
    """Which slots of a chunk hold tokens.

    Attributes:
      start: int32 scalar, the first; not 0 in the chunk that a piece goes on with.
      stop: int32 scalar, the first empty one after them.
      begun: bool scalar, whether the chunk was begun in an earlier piece and has weights of
        its own that it started from; None: never, as its stream starts with the piece.
    """

    start: jax.Array
    stop: jax.Array
    begun: jax.Array | None


def initial_weights(initial: Any, batch: int, momentum: bool) -> FastWeights:
    """Weights of `batch` sequences that have read nothing.

    Args:
      initial: slow weights, a tree of `[H, ...]`.
      batch: number of sequences.
      momentum: whether writes carry momentum.
    """
    rows = jax.tree.map(lambda w: jnp.broadcast_to(w, (batch, *w.shape)), initial)
    zeros = jax.tree.map(jnp.zeros_like, rows) if momentum else None
    return FastWeights(running=rows, frozen=rows, momentum=zeros)


def forget(first: Any, state: Any, fresh_B: jax.Array) -> Any:
    """`first` in the rows where `fresh_B`, `state` in others; trees of `[B, ...]`."""
    return jax.tree.map(lambda s, f: jnp.where(_like(fresh_B, s), f, s), state, first)


def run_chunks(
    one_chunk: Callable[..., tuple[Any, Any, Any, Any]],
    initial: Any,
    weights: FastWeights,
    inputs: Any,
    offset: jax.Array | int,
    chunk: int,
    *,
    context: Any = None,
    remat: Remat = "auto",
    bptt_chunks: int | None = None,
) -> tuple[Any, FastWeights, Any]:
    """Scan over the chunks of a piece of text.

    Args:
      one_chunk: `(initial, weights, context, part, slots)` to
        `(running, momentum, context, out)`, for one chunk; see `Slots` for which weights its
        gradients are taken at. `initial` has a batch axis of size 1.
      initial: slow weights `[H, ...]`, which a document starts from.
      weights: fast weights before the first token.
      inputs: per token, a tree of `[B, H, T, ...]` (H may be 1); its attribute `reset` is
        True where a document starts, or None, and empty slots are filled with zeros, so that
        its attribute `valid` is False there.
      offset: how many tokens the open chunk has. The constant 0 says that there is none.
      chunk: C.
      context: whatever else goes from chunk to chunk.
      remat: see `scan_chunks`.
      bptt_chunks: gradients of the weights cross at most this many chunks; None: all.

    Returns:
      What `one_chunk` put out for every token, and weights and context after the last.
    """
    aligned = isinstance(offset, int)
    length = inputs.valid.shape[2]
    slots = length if aligned else length + chunk - 1
    count = -(-slots // chunk)
    ragged = not aligned or length % chunk != 0
    laid_out = inputs
    if ragged:
        laid_out = jax.tree.map(lambda x: lay_out(x, count * chunk, offset), inputs)
    chunks = jax.tree.map(lambda x: _split(x, count), laid_out)
    rows = jax.tree.map(lambda w: w[None], initial)
    end = offset + length
    last = end // chunk  # the chunk that the next token belongs to

    def body(carry, index_and_chunk):
        (weights, context), (index, part) = carry, index_and_chunk
        if bptt_chunks is not None:
            cut = (index % bptt_chunks == 0) & (index > 0)
            weights = jax.tree.map(
                lambda w: jnp.where(cut, jax.lax.stop_gradient(w), w), weights
            )
        filled = Slots(
            start=jnp.maximum(offset - index * chunk, 0),
            stop=jnp.clip(end - index * chunk, 0, chunk),
            begun=None if aligned else index == 0,
        )
        start, frozen = weights.running, weights.frozen
        running, momentum, context, out = one_chunk(rows, weights, context, part, filled)
        if ragged:
            frozen = jax.tree.map(lambda f, w: jnp.where(index == last, w, f), frozen, start)
        return (FastWeights(running, frozen, momentum), context), out

    xs = (jnp.arange(count), chunks)
    (new, context), outs = scan_chunks(body, (weights, context), xs, remat)
    if ragged:
        # The frozen weights of a chunk that is still open; at a boundary, the running
        # ones. When the open chunk is the one that we started in, they have not changed.
        frozen = new.frozen
        if not aligned:
            frozen = jax.tree.map(
                lambda f, f0: jnp.where(last == 0, f0, f), frozen, weights.frozen
            )
        if inputs.reset is not None:  # after a reset the open chunk sees the initial ones
            open_now = jnp.arange(count * chunk) // chunk == last
            forgot = jnp.any(laid_out.reset & open_now[None, None], axis=-1)
            frozen = forget(rows, frozen, forgot)
        frozen = jax.tree.map(
            lambda f, w: jnp.where(end % chunk == 0, w, f), frozen, new.running
        )
    else:
        frozen = new.running
    outs = jax.tree.map(lambda x: _take(_join(x), offset, length), outs)
    return outs, new.replace(frozen=frozen), context


def _like(flag_B: jax.Array, x: jax.Array) -> jax.Array:
    return flag_B.reshape(-1, *(1,) * (x.ndim - 1))


def lay_out(x: jax.Array, slots: int, offset: jax.Array | int, axis: int = 2) -> jax.Array:
    """Place time (`axis`) behind `offset` empty slots in an array of `slots` slots."""
    padded = jnp.zeros((*x.shape[:axis], slots, *x.shape[axis + 1 :]), x.dtype)
    return jax.lax.dynamic_update_slice_in_dim(padded, x, offset, axis)


def _take(x: jax.Array, offset: jax.Array | int, length: int) -> jax.Array:
    if isinstance(offset, int):
        return x[:, :, offset : offset + length]
    return jax.lax.dynamic_slice_in_dim(x, offset, length, axis=2)


def _split(x: jax.Array, count: int) -> jax.Array:
    """`[B, H, N C, ...]` to `[N, B, H, C, ...]`."""
    return jnp.moveaxis(x.reshape(*x.shape[:2], count, -1, *x.shape[3:]), 2, 0)


def _join(x: jax.Array) -> jax.Array:
    """`[N, B, H, C, ...]` to `[B, H, N C, ...]`."""
    x = jnp.moveaxis(x, 0, 2)
    return x.reshape(*x.shape[:2], -1, *x.shape[4:])
