r"""A deep memory as context of attention: Titans "MAC", segment by segment.

Behrouz et al. 2025, arXiv:2501.00663, section 4.1. A segment is a chunk of C tokens of the
memory (`hope_jax.ops.deep_memory`), and M_0 the memory before it. For token t of a segment::

    h_t = M_0(ask_t)                                     what the memory knows about it
    y_t = attention of t to [learned tokens | h_1 .. h_t | x_1 .. x_t]
    M_t = M_{t-1} written with y_t                        gradients at M_0
    m_t = M_t(y_t)                                        which gates y_t

Two things are said here that the paper leaves open. A token sees what was retrieved for
itself and the tokens before it, not for those after it, whose words it would then know. And
the memory is read at each token as it is after its write, not after the whole segment's.

So all tokens of a segment are computed at once, and T tokens take T / C steps. A segment that
is open keeps its keys and values, of tokens and of retrievals: the next token finds what it
would have found in one piece. Segments are counted from the start of the stream; a document
that starts inside one starts a short one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.attention import MASKED
from hope_jax.ops.chunks import FastWeights, Slots, run_chunks
from hope_jax.ops.deep_memory import (
    DeepMemorySpec,
    Layers,
    Part,
    chunk_start,
    evaluate,
    find,
    write_and_read,
    write_and_read_token,
)
from hope_jax.ops.memory import Frozen


@flax.struct.dataclass
class Tokens:
    """What does not depend on the memory, heads before time: `[B, H, T, K]`.

    Attributes:
      q: queries of the attention, rotated by their places in the segment.
      plain: the same, not rotated, for the learned tokens.
      k, v: keys, rotated likewise, and values.
      ask: float32 queries to the memory before the segment.
      valid: bool `[B, 1, T]`, False leaves the memory alone.
      reset: bool `[B, 1, T]`, True where a document starts; None: nowhere.
    """

    q: jax.Array
    plain: jax.Array
    k: jax.Array
    v: jax.Array
    ask: jax.Array
    valid: jax.Array
    reset: jax.Array | None


@flax.struct.dataclass
class Context:
    """The open segment.

    Attributes:
      keys, values: `[B, H, C, K]` each of what was retrieved and of the tokens themselves, in
        the order of the segment; zeros after its last token.
      tail: a tree, whatever `written` keeps from token to token.
      first_B: int32, where in the segment the document starts; 0 if it does before.
    """

    keys: tuple[jax.Array, jax.Array]
    values: tuple[jax.Array, jax.Array]
    tail: Any
    first_B: jax.Array


@flax.struct.dataclass
class MemoryAsContextState:
    """Everything that reading on needs; its size does not depend on what was read.

    Attributes:
      weights: of the memory's layers.
      context: the open segment.
      position: int32 scalar, tokens read modulo C.
    """

    weights: FastWeights
    context: Context
    position: jax.Array


# Keys and values of retrievals `[B, H, C, K]` at places `[C]` of the segment.
Remember = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
# What the memory is written with: `(y, tail, valid, reset, slots)` to its part and tail.
Written = Callable[[jax.Array, Any, jax.Array, jax.Array | None, Slots], tuple[Part, Any]]


def read_by_segment(
    spec: DeepMemorySpec,
    layers: Layers,
    prefix: tuple[jax.Array, jax.Array],
    remember: Remember,
    written: Written,
    tokens: Tokens,
    state: MemoryAsContextState,
    *,
    fresh: bool = False,
) -> tuple[jax.Array, jax.Array, MemoryAsContextState]:
    """Attend and write, segment by segment.

    Args:
      spec: the memory's recurrence; its chunk is the segment.
      layers: initial weights of the memory, `[H, K, Z]` float32.
      prefix: keys and values `[P, H, K]` of learned tokens.
      remember: see `Remember`.
      written: see `Written`.
      tokens: T >= 1 tokens.
      state: where to go on from.
      fresh: the state has read nothing, which is known while compiling.

    Returns:
      What attention gave, `[B, H, T, K]`, what the memory reads for it, float32 of the same
      shape, and the state after the last token.
    """
    chunk = spec.chunk
    place_C = jnp.arange(chunk, dtype=jnp.int32)

    def one_segment(rows, weights, context, part, slots):
        start, frozen = chunk_start(rows, weights, part.reset, slots)
        new_k, new_v = remember(evaluate(spec, frozen, part.ask), place_C)
        known_C1 = (place_C < slots.start)[:, None]
        fill = lambda old, *new: jax.tree.map(lambda o, n: jnp.where(known_C1, o, n), old, new)
        keys = fill(context.keys, new_k, part.k)
        values = fill(context.values, new_v, part.v)
        document_BC, first_B = _documents(part.reset, context.first_B, chunk)
        seen_BTC = document_BC[:, :, None] == document_BC[:, None]
        seen_BTC = seen_BTC & (place_C[:, None] >= place_C[None])[None]
        y = attend(part.q, part.plain, keys, values, seen_BTC, prefix)
        write, tail = written(y, context.tail, part.valid, part.reset, slots)
        running, momentum, m = write_and_read(spec, rows, weights, start, frozen, write)
        there_C1 = ((place_C < slots.stop) & (slots.stop < chunk))[:, None]
        new = Context(
            *jax.tree.map(lambda x: jnp.where(there_C1, x, 0), (keys, values)),
            tail,
            jnp.where(slots.stop < chunk, first_B, 0),
        )
        empty = slots.stop == 0  # behind the last token: nothing has happened
        context = jax.tree.map(lambda o, n: jnp.where(empty, o, n), context, new)
        return running, momentum, context, (y, m)

    (y, m), weights, context = run_chunks(
        one_segment,
        tuple(layers),
        state.weights,
        tokens,
        0 if fresh else state.position,
        chunk,
        context=state.context,
        remat=spec.remat,
    )
    position = (state.position + tokens.q.shape[2]) % chunk
    return y, m, MemoryAsContextState(weights, context, position)


def read_by_token(
    spec: DeepMemorySpec,
    layers: Layers,
    prefix: tuple[jax.Array, jax.Array],
    remember: Remember,
    written: Written,
    tokens: Tokens,
    state: MemoryAsContextState,
) -> tuple[jax.Array, jax.Array, MemoryAsContextState]:
    """The same function as `read_by_segment`, one token after another."""
    chunk = spec.chunk
    place_C = jnp.arange(chunk, dtype=jnp.int32)
    one = Slots(jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32), None)

    def step(state: MemoryAsContextState, token: Tokens):
        weights, place, context = state.weights, state.position, state.context
        weights = find(layers, weights, token.reset)
        first_B = context.first_B
        if token.reset is not None:
            first_B = jnp.where(token.reset[:, 0, 0], place, first_B)
        new_k, new_v = remember(evaluate(spec, Frozen(weights.frozen), token.ask), place[None])
        put = lambda old, *new: jax.tree.map(
            lambda o, n: jax.lax.dynamic_update_slice_in_dim(o, n, place, 2), old, new
        )
        keys = put(context.keys, new_k, token.k)
        values = put(context.values, new_v, token.v)
        seen_BC = (place_C <= place)[None] & (place_C[None] >= first_B[:, None])
        y = attend(token.q, token.plain, keys, values, seen_BC[:, None], prefix)
        write, tail = written(y, context.tail, token.valid, token.reset, one)
        weights, m = write_and_read_token(spec, layers, weights, write, place)
        closed = lambda k, v, f: jax.tree.map(jnp.zeros_like, (k, v, f))
        kept = lambda k, v, f: (k, v, f)
        keys, values, first_B = jax.lax.cond(
            place + 1 == chunk, closed, kept, keys, values, first_B
        )
        context = Context(keys, values, tail, first_B)
        state = MemoryAsContextState(weights, context, (place + 1) % chunk)
        return state, (y[:, :, 0], m[:, :, 0])

    per_token = jax.tree.map(lambda x: jnp.expand_dims(jnp.moveaxis(x, 2, 0), 3), tokens)
    state, (y, m) = jax.lax.scan(step, state, per_token)
    return jnp.moveaxis(y, 0, 2), jnp.moveaxis(m, 0, 2), state


def attend(
    q: jax.Array,
    plain: jax.Array,
    keys: tuple[jax.Array, jax.Array],
    values: tuple[jax.Array, jax.Array],
    seen_BTC: jax.Array,
    prefix: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """Softmax attention to learned tokens, retrievals and tokens, in one.

    Args:
      q, plain: `[B, H, T, K]` queries, and the same not rotated.
      keys, values: see `Context`.
      seen_BTC: bool, which places of the segment a query sees, of both kinds.
      prefix: keys and values `[P, H, K]`.
    """
    k_PHK, v_PHK = prefix
    score = lambda equation, x, k: (
        q.shape[-1] ** -0.5 * jnp.einsum(equation, x, k, preferred_element_type=jnp.float32)
    )
    score_BHTP = score("bhtk,phk->bhtp", plain, k_PHK)
    scores = [
        jnp.where(seen_BTC[:, None], score("bhtk,bhck->bhtc", q, k), MASKED) for k in keys
    ]
    total_BHT1 = jax.nn.logsumexp(score_BHTP, axis=-1, keepdims=True)
    for score_BHTC in scores:
        more_BHT1 = jax.nn.logsumexp(score_BHTC, axis=-1, keepdims=True)
        total_BHT1 = jnp.logaddexp(total_BHT1, more_BHT1)
    weight = lambda score: jnp.exp(score - total_BHT1).astype(q.dtype)
    y = jnp.einsum("bhtp,phk->bhtk", weight(score_BHTP), v_PHK)
    for score_BHTC, v in zip(scores, values, strict=True):
        y = y + jnp.einsum("bhtc,bhck->bhtk", weight(score_BHTC), v)
    return y


def _documents(
    reset: jax.Array | None, first_B: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """The document of each slot of a segment, and where the last one starts."""
    place_C = jnp.arange(chunk, dtype=jnp.int32)[None]
    before_BC = jnp.where(place_C < first_B[:, None], -1, 0)
    if reset is None:
        return before_BC, first_B
    reset_BC = reset[:, 0]
    last_B = jnp.max(jnp.where(reset_BC, place_C, -1), axis=1)
    document_BC = jnp.cumsum(reset_BC, axis=1, dtype=jnp.int32) + before_BC
    return document_BC, jnp.where(last_B >= 0, last_B, first_B)
