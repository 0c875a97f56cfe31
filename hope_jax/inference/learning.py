"""Streams of a model whose CMS learns while it reads.

What a chunk teaches is known when its last token is followed by another: the loss of that one
belongs to it. So a chunk stays open until then. Its stream at the cut of `Reader` is kept, and
the fast states above the cut as they were at its start; when the next token comes, the chunk is
read again from there for its gradient, the levels that are due take their step, and the token
is read with the weights that this gives. Training does the same, chunk by chunk.

Tokens that are not to be learned from end the open chunk: it is learned from as it is when the
next one begins, after them.

Every row is a stream of its own, with its own place in its own chunk.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.inference.apart import put_together, take_apart
from hope_jax.inference.limits import Limits, is_noise, within
from hope_jax.inference.rows import choose, choose_of_mixers
from hope_jax.layers.attention import AttentionState
from hope_jax.layers.fast_weights import Weights, moving_levels
from hope_jax.layers.linear import compute_dtype
from hope_jax.models import next_token_losses
from hope_jax.models.in_context import Reader, fresh_fast, inner_levels
from hope_jax.nested import LevelsState


@dataclasses.dataclass(frozen=True)
class Mode:
    """What reading may change.

    Attributes:
      writes: False: nothing that lasts; the memories of the mixers are not written to either.
      learns: False: the CMS does not learn, though the mixers remember.
      limits: of what the CMS may learn.
    """

    writes: bool = True
    learns: bool = True
    limits: Limits = Limits()


@flax.struct.dataclass
class LearningState:
    """Fast state of a model that adapts.

    Attributes:
      below: states of the mixers below the cut, stacked over blocks or a tuple.
      above: of those above; None (or an empty tuple): there are none.
      start: those above, when the open chunk began.
      x_BCD: the stream at the cut of the open chunk's tokens.
      ids_BC: these tokens.
      dropped_BC: whether the context was dropped before each.
      count_B: how many there are; C: the chunk waits for the token that closes it.
      drop_B: whether the context has been dropped since the last token.
      gap_B: whether tokens have come since that are not to be learned from.
      weights: fast weights, `[blocks, B, ...]`.
      levels: state of the engine, a row of every array per stream.
      refused_B: updates that did not take place, not being finite or teaching noise.
    """

    below: Any
    above: Any
    start: Any
    x_BCD: jax.Array
    ids_BC: jax.Array
    dropped_BC: jax.Array
    count_B: jax.Array
    drop_B: jax.Array
    gap_B: jax.Array
    weights: Weights
    levels: LevelsState
    refused_B: jax.Array

    @property
    def open_B(self) -> jax.Array:
        """Tokens of the chunk that the next token that is learned from goes on with."""
        return jnp.where(self.gap_B, 0, self.count_B)


def fresh_learning(config: ModelConfig, params: Any, batch: int) -> LearningState:
    """The state of streams that have read nothing."""
    reader, chunk = Reader(config, params), config.cms.in_context.chunk
    above = reader.empty_states(batch, 0)
    none_B = jnp.zeros(batch, jnp.int32)
    weights = fresh_fast(config, params, batch).weights
    levels = inner_levels(config, params, rows=False)
    return LearningState(
        below=reader.read_below(jnp.zeros((batch, 0), jnp.int32), None).states,
        above=above,
        start=above,
        x_BCD=jnp.zeros((batch, chunk, config.dim), compute_dtype(config)),
        ids_BC=jnp.zeros((batch, chunk), jnp.int32),
        dropped_BC=jnp.zeros((batch, chunk), bool),
        count_B=none_B,
        drop_B=jnp.zeros(batch, bool),
        gap_B=jnp.zeros(batch, bool),
        weights=weights,
        levels=jax.vmap(levels.init, in_axes=1)(weights),
        refused_B=none_B,
    )


def learning_apart(state: LearningState, config: ModelConfig) -> LearningState:
    """The states of the mixers as tuples, for `read_learning` with parameters apart."""
    frozen = config.depth - config.cms.in_context.adapting(config.depth) + 1
    later = config.depth - frozen
    return state.replace(
        below=take_apart(state.below, frozen),
        above=take_apart(state.above, later),
        start=take_apart(state.start, later),
    )


def learning_together(state: LearningState) -> LearningState:
    """Inverse of `learning_apart`."""
    parts = {name: put_together(getattr(state, name)) for name in ("below", "above", "start")}
    return state.replace(**parts)


def read_learning(
    config: ModelConfig,
    params: Any,
    state: LearningState,
    ids_BT: jax.Array,
    mode: Mode,
) -> tuple[jax.Array, LearningState]:
    """Read tokens that fit into the open chunk, or begin the next one.

    Args:
      config: of the model.
      params: its parameters, blocks stacked or apart as the state's mixers are.
      state: to go on from.
      ids_BT: one token, or a whole chunk where all rows are between two.
      mode: what the tokens may change.

    Returns:
      `logits_BTW` of the tokens after these, and the state.
    """
    reader = Reader(config, params, mode.writes)
    learns = mode.writes and mode.learns
    if learns:
        state = _close(reader, state, ids_BT[:, 0], mode.limits)
    # `drop_context` has emptied the mixers; the mark is for reading the chunk again
    marks_B = state.drop_B & (state.count_B > 0)
    dropped_BT = jnp.zeros(ids_BT.shape, bool).at[:, 0].set(marks_B)
    below = reader.read_below(ids_BT, state.below)
    fast = reader.fast_weights(state.weights)
    above = reader.read_above(below.y, state.above, fast)
    state = state.replace(below=below.states, above=above.states)
    if learns:
        return above.y, _keep(state, below.y, ids_BT, dropped_BT)
    return above.y, state.replace(gap_B=jnp.ones_like(state.gap_B))


def forget(
    config: ModelConfig, fresh: LearningState, state: LearningState, below: int | None
) -> LearningState:
    """Drop the context, and what has a period below so many tokens.

    Args:
      config: of the model.
      fresh: from `fresh_learning`, with as many rows.
      state: which forgets.
      below: tokens; None: the context alone.
    """
    state, chunks = drop_context(fresh, state), moving_levels(config)
    gone = [name for name, chunk in chunks.items() if below and chunk < below]
    return _forget_levels(fresh, state, gone) if gone else state


def drop_context(fresh: LearningState, state: LearningState) -> LearningState:
    """What mixers remember is gone; weights and the open chunk stay.

    Args:
      fresh: from `fresh_learning`, with as many rows.
      state: of which the context is dropped.
    """

    def anew(new, old):
        if isinstance(old, AttentionState):  # keeps its room
            return jax.tree.map(jnp.zeros_like, old)
        return new

    is_cache = lambda s: isinstance(s, AttentionState)
    below, above = (
        jax.tree.map(anew, getattr(fresh, part), getattr(state, part), is_leaf=is_cache)
        for part in ("below", "above")
    )
    start = choose_of_mixers(state.count_B == 0, above, state.start)
    return state.replace(
        below=below, above=above, start=start, drop_B=jnp.ones_like(state.drop_B)
    )


def _forget_levels(
    fresh: LearningState, state: LearningState, names: Collection[str]
) -> LearningState:
    """Fast weights of some levels, and the open chunk, as if nothing had been read."""
    of = lambda new, old: {k: (new if k in names else old)[k] for k in old}
    levels = state.levels.replace(levels=of(fresh.levels.levels, state.levels.levels))
    return _emptied(state.replace(weights=of(fresh.weights, state.weights), levels=levels))


def _emptied(state: LearningState) -> LearningState:
    """Without an open chunk."""
    names = ("x_BCD", "ids_BC", "dropped_BC", "count_B")
    empty = {name: jnp.zeros_like(getattr(state, name)) for name in names}
    return state.replace(**empty, start=state.above)


@functools.partial(jax.jit, static_argnames=("config", "limits"))
def settle(
    config: ModelConfig, params: Any, state: LearningState, limits: Limits
) -> LearningState:
    """Learn from open chunks as they are, and keep none of their tokens.

    The last token of each is not learned from: what follows it is not known.
    """
    reader, chunk = Reader(config, params), config.cms.in_context.chunk
    targets_BC = jnp.roll(state.ids_BC, -1, axis=1)
    known_BC = jnp.arange(chunk)[None] < state.count_B[:, None] - 1
    state = _learn(reader, state, targets_BC, known_BC, state.count_B > 1, limits)
    return _emptied(state)


def choose_learning_rows(
    take_B: jax.Array, new: LearningState, old: LearningState
) -> LearningState:
    """The rows `take_B` of one state, and the others of another."""
    mixers = ("below", "above", "start")
    parts = {
        name: choose_of_mixers(take_B, getattr(new, name), getattr(old, name))
        for name in mixers
    }
    weights = choose(take_B, new.weights, old.weights, axis=1)
    none = dict.fromkeys((*mixers, "weights"))
    rest = choose(take_B, new.replace(**none), old.replace(**none), axis=0)
    return rest.replace(**parts, weights=weights)


def _keep(
    state: LearningState, x_BTD: jax.Array, ids_BT: jax.Array, dropped_BT: jax.Array
) -> LearningState:
    """The tokens in the open chunk."""
    put = jax.vmap(lambda kept, new, at: jax.lax.dynamic_update_slice_in_dim(kept, new, at, 0))
    return state.replace(
        x_BCD=put(state.x_BCD, x_BTD, state.count_B),
        ids_BC=put(state.ids_BC, ids_BT, state.count_B),
        dropped_BC=put(state.dropped_BC, dropped_BT, state.count_B),
        count_B=state.count_B + ids_BT.shape[1],
        drop_B=jnp.zeros_like(state.drop_B),
        gap_B=jnp.zeros_like(state.gap_B),
    )


def _close(
    reader: Reader, state: LearningState, next_B: jax.Array, limits: Limits
) -> LearningState:
    """Learn from the chunks that end here: full ones, and those that a gap has ended."""
    chunk, place_C = reader.how.chunk, jnp.arange(reader.how.chunk)
    full_B = state.count_B == chunk
    ends_B = full_B | state.gap_B
    targets_BC = jnp.concatenate([state.ids_BC[:, 1:], next_B[:, None]], axis=1)
    # the next token follows the last one of a full chunk, unless others came between
    known_B = state.count_B - jnp.where(full_B & ~state.gap_B, 0, 1)
    counted_BC = place_C[None] < known_B[:, None]
    teaches_B = ends_B & (known_B > 0)
    learn = lambda: _learn(reader, state, targets_BC, counted_BC, teaches_B, limits)

    def end():
        learned = jax.lax.cond(teaches_B.any(), learn, lambda: state)
        start = choose_of_mixers(ends_B, learned.above, learned.start)
        return learned.replace(start=start, count_B=jnp.where(ends_B, 0, learned.count_B))

    # one branch for the tokens within a chunk, which are nearly all: a branch hands on a copy
    return jax.lax.cond(ends_B.any(), end, lambda: state)


def _learn(reader, state, targets_BC, counted_BC, due_B, limits):
    """The levels of the rows that are due take a step, if it is not refused."""
    grads, losses_BC, _ = reader.chunk_gradient(
        state.weights,
        state.x_BCD,
        state.start,
        targets_BC,
        mixers_BC=state.dropped_BC,
        counted_BC=counted_BC,
    )
    levels = inner_levels(reader.config, reader.params, rows=False)
    step = jax.vmap(
        lambda w, s, g: levels.step(w, s, g)[:2], in_axes=(1, 0, 1), out_axes=(1, 0)
    )
    weights, moved = step(state.weights, state.levels, grads)
    chain = levels.levels
    returned = {
        fast.name: moved.tick % slow.period == 0
        for fast, slow in zip(chain, chain[1:], strict=False)
        if fast.reset_to_init
    }
    weights = within(reader, state.weights, weights, limits, returned)
    # a sum of what is not finite is not; it takes a CPU a sixth of the time of asking each part
    others = lambda x, axis: [a for a in range(x.ndim) if a != axis]
    finite = lambda x, axis: jnp.isfinite(x.sum(axis=others(x, axis)))
    floats = [x for x in jax.tree.leaves(moved) if jnp.issubdtype(x.dtype, jnp.floating)]
    sound_B = jnp.stack(
        [finite(w, 1) for w in jax.tree.leaves(weights)] + [finite(x, 0) for x in floats]
    ).all(axis=0)
    if limits.surprise is not None:
        sound_B &= ~_noise(reader, state, targets_BC, counted_BC, losses_BC, limits.surprise)
    take_B = due_B & sound_B
    return state.replace(
        weights=choose(take_B, weights, state.weights, axis=1),
        levels=choose(take_B, moved, state.levels, axis=0),
        refused_B=state.refused_B + (due_B & ~sound_B),
    )


def _noise(reader, state, targets_BC, counted_BC, losses_BC, surprise):
    """Whether chunks are noise, with fast weights and without, `[B]`.

    Without them too, so that a stream that went astray can learn its way back.
    """
    noise_B = is_noise(losses_BC, counted_BC, reader.config.vocab_size, surprise)

    def without():
        none = jax.tree.map(jnp.zeros_like, state.weights)
        fast = reader.fast_weights(none)
        part = reader.read_above(state.x_BCD, state.start, fast, state.dropped_BC)
        slow_BC = next_token_losses(part.y, targets_BC)
        return is_noise(slow_BC, counted_BC, reader.config.vocab_size, surprise)

    return noise_B & jax.lax.cond(noise_B.any(), without, lambda: noise_B)
