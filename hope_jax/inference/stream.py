"""A stream: where a model stands in the text that it reads.

Reading goes in pieces of many tokens, computed in parallel, and then token by token; the
two are the same function of the text. Both are jitted with the stream donated, so that a
stream of any length takes the memory of one state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hope_jax.config.check import require
from hope_jax.inference.apart import put_together, read_token, take_apart
from hope_jax.inference.learning import (
    LearningState,
    Mode,
    choose_learning_rows,
    forget,
    fresh_learning,
    learning_apart,
    learning_together,
    read_learning,
    settle,
)
from hope_jax.inference.limits import Limits
from hope_jax.inference.rows import choose_of_mixers
from hope_jax.inference.sampling import Sampling, sample
from hope_jax.layers.attention import AttentionState, reserve
from hope_jax.layers.embed import without_padding
from hope_jax.models import LanguageModel, next_token_losses

PIECES = (512, 64)  # tokens read in parallel; what is left over goes token by token
STEPS = 16  # tokens per dispatch when they go one by one
MODE = Mode()
ROOM = 512  # key-value caches grow by multiples of this, so that few shapes are compiled


@struct.dataclass
class StreamState:
    """The fast state after some text, and what the model expects next.

    Attributes:
      state: fast state of the model (memories, momenta, convolution tails, caches), or
        `LearningState` where the CMS learns from what is read.
      logits_BW: float32 scores of the next token; equal for all while nothing was read.
    """

    state: Any
    logits_BW: jax.Array

    @property
    def batch(self) -> int:
        """Number of streams side by side."""
        return self.logits_BW.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the fast state and the logits."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))


@functools.partial(jax.jit, static_argnames=("model", "batch"))
def fresh(model: LanguageModel, params: Any, batch: int = 1) -> StreamState:
    """A stream that has read nothing: every memory at its learned initial value.

    Raises:
      ValueError: the model tells texts back (`reconstruct`) and predicts no next token.
    """
    require(
        not model.config.reconstruct,
        "this model tells a text back from its last token (model.reconstruct) and predicts no "
        "next one: it can be evaluated on its task, not read or write",
    )
    return _fresh(model, params, batch)


@functools.partial(jax.jit, static_argnames=("model", "batch"))
def _fresh(model: LanguageModel, params: Any, batch: int) -> StreamState:
    if model.config.cms.in_context.on:
        state = fresh_learning(model.config, params, batch)
    else:
        none_BT = jnp.zeros((batch, 0), jnp.int32)
        state = model.apply({"params": params}, none_BT).state
    even_BW = jnp.zeros((batch, model.config.vocab_rows), jnp.float32)
    return StreamState(state, without_padding(model.config, even_BW))


@functools.partial(jax.jit, static_argnames=("model", "mode"), donate_argnames=("stream",))
def read_piece(
    model: LanguageModel,
    params: Any,
    stream: StreamState,
    ids_BT: jax.Array,
    mode: Mode = MODE,
    take_B: jax.Array | None = None,
) -> tuple[StreamState, jax.Array]:
    """Read `ids_BT` in parallel; returns the stream and the loss in nats of every token.

    Rows that are not in `take_B` stay as they are, and their losses mean nothing.
    """
    read, expected_BTW = read_scores(model, params, stream, ids_BT, mode)
    loss_BT = next_token_losses(expected_BTW, ids_BT)
    return read if take_B is None else choose_rows(take_B, read, stream), loss_BT


def read_scores(
    model: LanguageModel, params: Any, stream: StreamState, ids_BT: jax.Array, mode: Mode = MODE
) -> tuple[StreamState, jax.Array]:
    """Read `ids_BT` in parallel; returns the stream and the scores before each token."""
    if isinstance(stream.state, LearningState):
        logits_BTW, state = read_learning(model.config, params, stream.state, ids_BT, mode)
    else:
        out = model.apply({"params": params}, ids_BT, stream.state, writes=mode.writes)
        logits_BTW, state = out.logits_BTW, out.state
    expected_BTW = jnp.concatenate([stream.logits_BW[:, None], logits_BTW[:, :-1]], axis=1)
    return StreamState(state, logits_BTW[:, -1]), expected_BTW


def choose_rows(take_B: jax.Array, new: StreamState, old: StreamState) -> StreamState:
    """The rows `take_B` of one state and the others of another."""
    logits_BW = jnp.where(take_B[:, None], new.logits_BW, old.logits_BW)
    if isinstance(new.state, LearningState):
        return StreamState(choose_learning_rows(take_B, new.state, old.state), logits_BW)
    return StreamState(choose_of_mixers(take_B, new.state, old.state), logits_BW)


def map_rows(stream: StreamState, change: Callable[[jax.Array, int], jax.Array]):
    """The stream with `change(array, axis of rows)` in place of every array that has rows.

    Some mixers keep one place in their chunk for all rows: such an array stays as it is.
    """
    one = lambda x, axis: change(x, axis) if x.ndim > axis else x
    at = lambda tree, axis: jax.tree.map(lambda x: one(x, axis), tree)
    logits_BW, inner = change(stream.logits_BW, 0), stream.state
    if not isinstance(inner, LearningState):
        return StreamState(at(inner, 1), logits_BW)
    stacked = ("below", "above", "start", "weights")
    rest = inner.replace(**dict.fromkeys(stacked))
    parts = {name: at(getattr(inner, name), 1) for name in stacked}
    return StreamState(at(rest, 0).replace(**parts), logits_BW)


@functools.partial(jax.jit, static_argnames=("model",))
def layers_apart(model: LanguageModel, stream: StreamState) -> StreamState:
    """The stream as `step_tokens` wants it: the state of every layer in arrays of its own.

    Those arrays stay in place from call to call. Taken apart in every call, they would be
    copied in and out, which costs as much as writing a token.
    """
    if isinstance(stream.state, LearningState):
        return stream.replace(state=learning_apart(stream.state, model.config))
    return stream.replace(state=take_apart(stream.state, model.config.depth))


@jax.jit
def layers_together(stream: StreamState) -> StreamState:
    """Inverse of `layers_apart`: a stream for everything else."""
    if isinstance(stream.state, LearningState):
        return stream.replace(state=learning_together(stream.state))
    return stream.replace(state=put_together(stream.state))


@struct.dataclass
class Steps:
    """Result of `step_tokens`.

    Attributes:
      stream: after the last token, its layers apart.
      ids_BN: the tokens, given or drawn; valid up to `count`.
      loss_BN: their losses in nats.
      done_B: rows that drew the end-of-document token.
      count: tokens taken, fewer than asked for when every row was done.
    """

    stream: StreamState
    ids_BN: jax.Array
    loss_BN: jax.Array
    done_B: jax.Array
    count: jax.Array


@functools.partial(jax.jit, static_argnames=("model", "mode"), donate_argnames=("stream",))
def step_tokens(
    model: LanguageModel,
    apart: Any,
    stream: StreamState,
    given_BN: jax.Array,
    given: jax.Array | int,
    total: jax.Array | int,
    keys_B: jax.Array,
    drawn: jax.Array | int = 0,
    done_B: jax.Array | None = None,
    how: Sampling = Sampling(),  # noqa: B008 - immutable
    end_id: jax.Array | int = -1,
    vocab: jax.Array | int | None = None,
    mode: Mode = MODE,
    length_B: jax.Array | None = None,
) -> Steps:
    """Take `total` (at most N) tokens one by one: first the given ones, then drawn ones.

    Args:
      model: the model.
      apart: its parameters, from `params_apart`.
      stream: from `layers_apart` or an earlier call; consumed.
      given_BN: int32; the first `given` columns are read, the rest is room for the result.
      given: number of given tokens.
      total: number of tokens, given and drawn.
      keys_B: one random key per row; token i of a row depends on its key and i alone.
      drawn: tokens drawn before this call.
      done_B: rows that ended before this call; they repeat `end_id`.
      how: how to draw.
      end_id: a row that draws this id is done; -1 for none.
      vocab: only ids below this are drawn; None for all.
      mode: what the tokens may change.
      length_B: tokens of each row; a row stays as it is after these. None: `total`.
    """
    if done_B is None:
        done_B = jnp.zeros(stream.batch, bool)

    def one_token(states, id_B):
        if not isinstance(states, LearningState):
            return read_token(model.config, apart, states, id_B, mode.writes)
        logits_BTW, states = read_learning(model.config, apart, states, id_B[:, None], mode)
        return logits_BTW[:, 0], states

    def more(carry):
        taken, done_B = carry[0], carry[-1]
        return (taken < total) & ~jnp.all(done_B)

    def step(carry):
        taken, states, expected_BW, ids_BN, loss_BN, done_B = carry
        is_given = taken < given
        number = jnp.maximum(drawn + taken - given, 0)
        draw_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)
        logits_BW = expected_BW
        if vocab is not None:
            ids_BW = jax.lax.broadcasted_iota(jnp.int32, logits_BW.shape, 1)
            logits_BW = jnp.where(ids_BW < vocab, logits_BW, -jnp.inf)
        id_B = jnp.where(done_B, end_id, sample(logits_BW, draw_B, how))
        id_B = jnp.where(is_given, ids_BN[:, taken], id_B)
        loss_B = next_token_losses(expected_BW, id_B)
        next_BW, read = one_token(states, id_B)
        if length_B is not None:
            now = StreamState(states, expected_BW)
            now = choose_rows(taken < length_B, StreamState(read, next_BW), now)
            next_BW, read = now.logits_BW, now.state
        return (
            taken + 1,
            read,
            next_BW,
            ids_BN.at[:, taken].set(id_B),
            loss_BN.at[:, taken].set(loss_B),
            done_B | (~is_given & (id_B == end_id)),
        )

    loss_BN = jnp.zeros(given_BN.shape, jnp.float32)
    taken, states, next_BW, ids_BN, loss_BN, done_B = jax.lax.while_loop(
        more,
        step,
        (jnp.int32(0), stream.state, stream.logits_BW, given_BN, loss_BN, done_B),
    )
    return Steps(StreamState(states, next_BW), ids_BN, loss_BN, done_B, taken)


def pieces(model: LanguageModel) -> tuple[int, ...]:
    """Sizes of pieces that are read in parallel, largest first."""
    how = model.config.cms.in_context
    return (how.chunk,) if how.on else PIECES


def tokens_before_pieces(stream: StreamState) -> int:
    """Tokens that go one by one before a piece can be read: those that fill an open chunk."""
    if not isinstance(stream.state, LearningState):
        return 0
    counts = np.unique(np.asarray(stream.state.open_B))
    if len(counts) > 1:
        raise ValueError("the streams stand at different places in their chunks")
    return int(-counts[0] % stream.state.ids_BC.shape[1])


def read_pieces(
    model: LanguageModel,
    params: Any,
    stream: StreamState,
    ids_BT: np.ndarray,
    mode: Mode = MODE,
) -> tuple[StreamState, np.ndarray, np.ndarray]:
    """Read as much of `ids_BT` in parallel pieces as fits.

    Consumes `stream`. Returns the stream, the losses `[B, T - rest]`, and the rest: fewer
    tokens than the smallest piece, to go through `step_tokens`.
    """
    losses, start = [np.zeros((len(ids_BT), 0), np.float32)], 0
    for size in pieces(model):
        while ids_BT.shape[1] - start >= size:
            piece_BT = jnp.asarray(ids_BT[:, start : start + size], jnp.int32)
            stream, loss_BT = read_piece(model, params, stream, piece_BT, mode)
            losses.append(loss_BT)
            start += size
    return stream, np.concatenate(losses, axis=1), ids_BT[:, start:]


def read_steps(
    model: LanguageModel,
    apart: Any,
    stream: StreamState,
    ids_BT: np.ndarray,
    vocab: int,
    mode: Mode = MODE,
) -> tuple[StreamState, np.ndarray]:
    """Read `ids_BT` token by token.

    Consumes `stream`. Returns it, and the losses `[B, T]`.
    """
    stream = layers_apart(model, stream)
    keys_B = jax.random.split(jax.random.key(0), len(ids_BT))
    losses = [np.zeros((len(ids_BT), 0), np.float32)]
    for start in range(0, ids_BT.shape[1], STEPS):
        given = min(STEPS, ids_BT.shape[1] - start)
        given_BN = np.zeros((len(ids_BT), STEPS), np.int32)
        given_BN[:, :given] = ids_BT[:, start : start + given]
        given_BN = jnp.asarray(given_BN)
        steps = step_tokens(
            model, apart, stream, given_BN, given, given, keys_B, vocab=vocab, mode=mode
        )
        stream = steps.stream
        losses.append(np.asarray(steps.loss_BN)[:, :given])
    return layers_together(stream), np.concatenate(losses, axis=1)


def read_ids(
    model: LanguageModel,
    params: Any,
    apart: Any,
    stream: StreamState,
    ids_BT: np.ndarray,
    vocab: int,
    mode: Mode = MODE,
) -> tuple[StreamState, np.ndarray]:
    """Read `ids_BT`, in pieces where that is possible.

    Args:
      model: the model.
      params: its parameters.
      apart: the same from `params_apart`.
      stream: consumed.
      ids_BT: tokens.
      vocab: ids of the tokenizer.
      mode: what they may change.

    Returns:
      The stream, and the losses `[B, T]`.
    """
    losses, first = [np.zeros((len(ids_BT), 0), np.float32)], tokens_before_pieces(stream)
    if 0 < first and first + min(pieces(model)) <= ids_BT.shape[1]:
        stream, loss_BT = read_steps(model, apart, stream, ids_BT[:, :first], vocab, mode)
        ids_BT = ids_BT[:, first:]
        losses.append(loss_BT)
        first = 0
    rest_BT = ids_BT
    if not first:
        stream, loss_BT, rest_BT = read_pieces(model, params, stream, ids_BT, mode)
        losses.append(loss_BT)
    if rest_BT.size:
        stream, loss_BT = read_steps(model, apart, stream, rest_BT, vocab, mode)
        losses.append(loss_BT)
    return stream, np.concatenate(losses, axis=1)


def settle_stream(
    model: LanguageModel, params: Any, stream: StreamState, limits: Limits
) -> StreamState:
    """The stream after it has learned from its open chunk; `stream` is left untouched."""
    roomy = open_stream(model, params, 0, stream)
    return roomy.replace(state=settle(model.config, params, roomy.state, limits))


def forget_context(
    model: LanguageModel,
    params: Any,
    stream: StreamState,
    limits: Limits,
    below: int | None = None,
) -> StreamState:
    """The stream without its context, and without levels that are updated more often.

    It learns from its open chunk before: what was read last would be lost to answers otherwise,
    until the chunk is full.

    Args:
      model: the model.
      params: its parameters.
      stream: left untouched.
      limits: of what reading may do to weights.
      below: tokens per update; None: the context alone.
    """
    anew = fresh(model, params, stream.batch)
    if not isinstance(stream.state, LearningState):
        return anew
    stream = settle_stream(model, params, stream, limits)
    return anew.replace(state=forget(model.config, anew.state, stream.state, below))


def at_beginning(model: LanguageModel, stream: StreamState) -> np.ndarray:
    """Rows in which nothing was read since they began or forgot their context, bool `[B]`."""
    logits_BW = np.asarray(stream.logits_BW).reshape(-1, stream.logits_BW.shape[-1])
    logits_BW = logits_BW[:, : model.config.vocab_size]
    return (logits_BW == logits_BW[:, :1]).all(axis=1)


def open_stream(
    model: LanguageModel, params: Any, tokens: int, stream: StreamState | None = None
):
    """A stream that may be consumed, with room to read `tokens` more.

    Args:
      model: the model.
      params: its parameters.
      tokens: how many tokens will be read; only key-value caches need to know.
      stream: where to go on from, left untouched; None: fresh.
    """
    stream = fresh(model, params) if stream is None else jax.tree.map(jnp.copy, stream)
    caches = _caches(stream)
    most = max(map(_tokens_read, caches), default=0)
    # an open chunk is read again from its start, in one piece of its full length
    again = stream.state.ids_BC.shape[1] if isinstance(stream.state, LearningState) else 0
    room = -(-(most + tokens + again) // ROOM) * ROOM
    room = max([room, *(cache.capacity for cache in caches)])

    def grow(cache: AttentionState) -> AttentionState:
        # to one size: a state that learns has caches of two times, and one becomes the other
        taken = _tokens_read(cache) if cache.reserved else cache.capacity
        return reserve(cache, room - taken)

    return _map_caches(grow, stream)


def compact(stream: StreamState) -> StreamState:
    """The stream without the room that key-value caches keep for tokens to come."""

    def trim(cache: AttentionState) -> AttentionState:
        used = _tokens_read(cache)
        return cache.replace(
            keys_BSHK=cache.keys_BSHK[..., :used, :, :],
            values_BSHK=cache.values_BSHK[..., :used, :, :],
            reserved=False,
        )

    return _map_caches(trim, stream)


def _tokens_read(cache: AttentionState) -> int:
    return int(np.max(cache.length_B, initial=0))


def _caches(stream: StreamState) -> list[AttentionState]:
    is_cache = lambda leaf: isinstance(leaf, AttentionState)
    return [leaf for leaf in jax.tree.leaves(stream, is_leaf=is_cache) if is_cache(leaf)]


def _map_caches(change, stream: StreamState) -> StreamState:
    is_cache = lambda leaf: isinstance(leaf, AttentionState)
    return jax.tree.map(
        lambda leaf: change(leaf) if is_cache(leaf) else leaf, stream, is_leaf=is_cache
    )
