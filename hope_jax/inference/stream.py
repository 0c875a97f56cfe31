"""A stream: where a model stands in the text that it reads.

Reading goes in pieces of many tokens, computed in parallel, and then token by token; the
two are the same function of the text. Both are jitted with the stream donated, so that a
stream of any length takes the memory of one state.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hope_jax.inference.apart import put_together, read_token, take_apart
from hope_jax.inference.sampling import Sampling, sample
from hope_jax.layers.attention import AttentionState, reserve
from hope_jax.layers.embed import without_padding
from hope_jax.models import LanguageModel, next_token_losses

PIECES = (512, 64)  # tokens read in parallel; what is left over goes token by token
STEPS = 16  # tokens per dispatch when they go one by one
ROOM = 512  # key-value caches grow by multiples of this, so that few shapes are compiled


@struct.dataclass
class Stream:
    """The fast state after some text, and what the model expects next.

    Attributes:
      state: fast state of the model (memories, momenta, convolution tails, caches).
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
def fresh(model: LanguageModel, params: Any, batch: int = 1) -> Stream:
    """A stream that has read nothing: every memory at its learned initial value."""
    none_BT = jnp.zeros((batch, 0), jnp.int32)
    state = model.apply({"params": params}, none_BT).state
    even_BW = jnp.zeros((batch, model.config.vocab_rows), jnp.float32)
    return Stream(state, without_padding(model.config, even_BW))


@functools.partial(jax.jit, static_argnames=("model", "writes"), donate_argnames=("stream",))
def read_piece(
    model: LanguageModel, params: Any, stream: Stream, ids_BT: jax.Array, writes: bool = True
) -> tuple[Stream, jax.Array]:
    """Read `ids_BT` in parallel; returns the stream and the loss in nats of every token."""
    out = model.apply({"params": params}, ids_BT, stream.state, writes=writes)
    expected_BTW = jnp.concatenate([stream.logits_BW[:, None], out.logits_BTW[:, :-1]], axis=1)
    loss_BT = next_token_losses(expected_BTW, ids_BT)
    return Stream(out.state, out.logits_BTW[:, -1]), loss_BT


@functools.partial(jax.jit, static_argnames=("model",))
def layers_apart(model: LanguageModel, stream: Stream) -> Stream:
    """The stream as `step_tokens` wants it: the state of every layer in arrays of its own.

    Those arrays stay in place from call to call. Taken apart in every call, they would be
    copied in and out, which costs as much as writing a token.
    """
    return stream.replace(state=take_apart(stream.state, model.config.depth))


@jax.jit
def layers_together(stream: Stream) -> Stream:
    """Inverse of `layers_apart`: a stream for everything else."""
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

    stream: Stream
    ids_BN: jax.Array
    loss_BN: jax.Array
    done_B: jax.Array
    count: jax.Array


@functools.partial(jax.jit, static_argnames=("model", "writes"), donate_argnames=("stream",))
def step_tokens(
    model: LanguageModel,
    apart: Any,
    stream: Stream,
    given_BN: jax.Array,
    given: jax.Array | int,
    total: jax.Array | int,
    keys_B: jax.Array,
    drawn: jax.Array | int = 0,
    done_B: jax.Array | None = None,
    how: Sampling = Sampling(),  # noqa: B008 - immutable
    end_id: jax.Array | int = -1,
    vocab: jax.Array | int | None = None,
    writes: bool = True,
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
    """
    if done_B is None:
        done_B = jnp.zeros(stream.batch, bool)

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
        next_BW, states = read_token(model.config, apart, states, id_B, writes)
        return (
            taken + 1,
            states,
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
    return Steps(Stream(states, next_BW), ids_BN, loss_BN, done_B, taken)


def read_pieces(
    model: LanguageModel, params: Any, stream: Stream, ids_BT: np.ndarray, writes: bool = True
) -> tuple[Stream, np.ndarray, np.ndarray]:
    """Read as much of `ids_BT` in parallel pieces as fits.

    Consumes `stream`. Returns the stream, the losses `[B, T - rest]`, and the rest: fewer
    tokens than the smallest piece, to go through `step_tokens`.
    """
    losses, start = [np.zeros((len(ids_BT), 0), np.float32)], 0
    for size in PIECES:
        while ids_BT.shape[1] - start >= size:
            piece_BT = jnp.asarray(ids_BT[:, start : start + size], jnp.int32)
            stream, loss_BT = read_piece(model, params, stream, piece_BT, writes)
            losses.append(loss_BT)
            start += size
    return stream, np.concatenate(losses, axis=1), ids_BT[:, start:]


def open_stream(model: LanguageModel, params: Any, tokens: int, stream: Stream | None = None):
    """A stream that may be consumed, with room to read `tokens` more.

    Args:
      model: the model.
      params: its parameters.
      tokens: how many tokens will be read; only key-value caches need to know.
      stream: where to go on from, left untouched; None: fresh.
    """
    stream = fresh(model, params) if stream is None else jax.tree.map(jnp.copy, stream)

    def grow(cache: AttentionState) -> AttentionState:
        used = _tokens_read(cache)
        return reserve(cache, -(-(used + tokens) // ROOM) * ROOM - used)

    return _map_caches(grow, stream)


def compact(stream: Stream) -> Stream:
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


def _map_caches(change, stream: Stream) -> Stream:
    is_cache = lambda leaf: isinstance(leaf, AttentionState)
    return jax.tree.map(
        lambda leaf: change(leaf) if is_cache(leaf) else leaf, stream, is_leaf=is_cache
    )
