"""Streams side by side: as rows of the model's batch, or each with a batch of its own."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.inference.learning import LearningState, Mode
from hope_jax.inference.stream import (
    STEPS,
    StreamState,
    forget_context,
    fresh,
    layers_apart,
    layers_together,
    map_rows,
    open_stream,
    read_piece,
    step_tokens,
)
from hope_jax.models import LanguageModel
from hope_jax.streams.stream import Stream


class Rows(Protocol):
    """What can be done with the state of R streams."""

    def repeat(self, state: StreamState, count: int) -> StreamState:
        """So many times a stream of one row."""

    def row(self, state: StreamState, number: int) -> StreamState:
        """One of them, as a stream of one row."""

    def open(self, state: StreamState, tokens: int) -> StreamState:
        """A copy that may be consumed, with room for so many tokens more."""

    def read(
        self, state: StreamState, ids_RT: np.ndarray, mode: Mode, take_R: np.ndarray
    ) -> tuple[StreamState, jax.Array]:
        """Read a piece of text in the rows that `take_R` names: the state, losses `[R, T]`."""

    def step(
        self, state: StreamState, ids_RN: np.ndarray, mode: Mode, length_R: np.ndarray
    ) -> tuple[StreamState, jax.Array]:
        """Read up to `STEPS` tokens one by one, `length_R` in each row: state and losses."""

    def forget(self, state: StreamState, below: int | None) -> StreamState:
        """`forget_context` in all of them."""


def rows_of(stream: Stream) -> Rows:
    """How streams that begin where this one stands lie side by side.

    Rows of one batch where every array of the state has rows. Some mixers keep one place in
    their chunk for a whole batch: there every stream has a batch of its own.
    """
    return _Apart(stream) if _keeps_one_place(stream.model, stream.params) else _InBatch(stream)


def tokens_of_chunk(state: StreamState) -> np.ndarray:
    """Tokens that each of the streams has read into the chunk that it learns from next."""
    inner = state.state
    if not isinstance(inner, LearningState):
        return np.zeros(state.logits_BW.shape[0], int)
    return np.asarray(inner.open_B).reshape(-1)


class _InBatch:
    def __init__(self, stream: Stream):
        self._stream = stream

    def repeat(self, state, count):
        return map_rows(state, lambda x, axis: jnp.repeat(x, count, axis=axis))

    def row(self, state, number):
        return map_rows(state, lambda x, axis: jax.lax.index_in_dim(x, number, axis))

    def open(self, state, tokens):
        return open_stream(self._stream.model, self._stream.params, tokens, state)

    def read(self, state, ids_RT, mode, take_R):
        ids_RT, take_R = jnp.asarray(ids_RT), jnp.asarray(take_R)
        stream = self._stream
        return read_piece(stream.model, stream.params, state, ids_RT, mode, take_R)

    def step(self, state, ids_RN, mode, length_R):
        stream = self._stream
        steps = step_tokens(
            stream.model,
            stream.apart,
            layers_apart(stream.model, state),
            jnp.asarray(ids_RN),
            STEPS,
            int(length_R.max()),
            jax.random.split(jax.random.key(0), len(ids_RN)),
            vocab=stream.base.tokenizer.vocab_size,
            mode=mode,
            length_B=jnp.asarray(length_R),
        )
        return layers_together(steps.stream), steps.loss_BN

    def forget(self, state, below):
        stream = self._stream
        return forget_context(stream.model, stream.params, state, stream.limits, below)


class _Apart:
    """Every array of the state has a first axis R before those of a stream of one row."""

    def __init__(self, stream: Stream):
        self._stream = stream

    def repeat(self, state, count):
        return jax.tree.map(lambda x: jnp.repeat(x[None], count, axis=0), state)

    def row(self, state, number):
        return jax.tree.map(lambda x: x[number], state)

    def open(self, state, tokens):
        stream = self._stream
        each = [
            open_stream(stream.model, stream.params, tokens, self.row(state, number))
            for number in range(state.logits_BW.shape[0])
        ]
        return jax.tree.map(lambda *xs: jnp.stack(xs), *each)

    def read(self, state, ids_RT, mode, take_R):
        ids_RT, take_R = jnp.asarray(ids_RT), jnp.asarray(take_R)
        return _read(self._stream.model, self._stream.params, state, ids_RT, mode, take_R)

    def step(self, state, ids_RN, mode, length_R):
        stream = self._stream
        vocab, length_R = stream.base.tokenizer.vocab_size, jnp.asarray(length_R)
        ids_RN = jnp.asarray(ids_RN)
        return _step(stream.model, stream.apart, state, ids_RN, mode, length_R, vocab)

    def forget(self, state, below):
        stream = self._stream
        each = [
            forget_context(
                stream.model, stream.params, self.row(state, number), stream.limits, below
            )
            for number in range(state.logits_BW.shape[0])
        ]
        return jax.tree.map(lambda *xs: jnp.stack(xs), *each)


@functools.partial(jax.jit, static_argnames=("model", "mode"), donate_argnames=("state",))
def _read(
    model: LanguageModel,
    params: Any,
    state: StreamState,
    ids_RT: jax.Array,
    mode: Mode,
    take_R: jax.Array,
) -> tuple[StreamState, jax.Array]:
    def one(state, ids_T, take):
        read, loss_1T = read_piece(model, params, state, ids_T[None], mode)
        chosen = jax.tree.map(lambda new, old: jnp.where(take, new, old), read, state)
        return chosen, loss_1T[0]

    return jax.vmap(one)(state, ids_RT, take_R)


@functools.partial(jax.jit, static_argnames=("model", "mode"), donate_argnames=("state",))
def _step(
    model: LanguageModel,
    apart: Any,
    state: StreamState,
    ids_RN: jax.Array,
    mode: Mode,
    length_R: jax.Array,
    vocab: int,
) -> tuple[StreamState, jax.Array]:
    keys_1 = jax.random.split(jax.random.key(0), 1)  # nothing is drawn

    def one(state, ids_N, length):
        state = layers_apart(model, state)
        steps = step_tokens(
            model, apart, state, ids_N[None], length, length, keys_1, vocab=vocab, mode=mode
        )
        return layers_together(steps.stream), steps.loss_BN[0]

    return jax.vmap(one)(state, ids_RN, length_R)


def _keeps_one_place(model: LanguageModel, params: Any) -> bool:
    """Whether some array of the state is the same for all rows."""
    shapes = [
        [x.shape for x in jax.tree.leaves(jax.eval_shape(lambda n=n: fresh(model, params, n)))]
        for n in (1, 2)
    ]
    return any(one == two for one, two in zip(*shapes, strict=True))
