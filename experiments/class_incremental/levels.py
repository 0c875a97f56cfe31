"""Reading with levels that learn, a row of tokens in one compiled program.

The levels take the steps that those of `hope_jax.Stream` take which forgets its context after
each row, without the stream's limits (a test compares the two). Beyond that, a chunk's loss may
be that of chosen tokens alone: a stream learns from every token that it reads, and this is what
it would be if it knew which of them matter.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.models.in_context import Reader


@functools.partial(jax.jit, static_argnames="config")
def read_row(
    config: ModelConfig,
    params: Any,
    weights: Any,
    state: Any,
    ids_T: jax.Array,
    counted_T: jax.Array,
    drop_T: jax.Array,
) -> tuple[Any, Any]:
    """Read a row from an empty context, chunk by chunk.

    Args:
      config: of the model, with its levels.
      params: slow weights.
      weights: fast weights, `[blocks, 1, ...]`.
      state: of the levels.
      ids_T: int32 tokens, a multiple of the chunk.
      counted_T: tokens whose prediction of the next one counts; not the last.
      drop_T: where the context is dropped before a token.

    Returns:
      Fast weights and the levels' state after the row.
    """
    reader, chunk = Reader(config, params), config.cms.in_context.chunk
    ids_BT = ids_T[None]
    below = reader.read_below(ids_BT, None, drop_T[None])
    chunks = lambda x_BT: x_BT.reshape(1, -1, chunk, *x_BT.shape[2:]).swapaxes(0, 1)
    xs = map(chunks, (below.y, jnp.roll(ids_BT, -1, axis=1), counted_T[None], drop_T[None]))

    def read(carry, x):
        weights, state, states = carry
        x_BCD, targets_BC, counted_BC, drop_BC = x
        grads, _, part = reader.chunk_gradient(
            weights, x_BCD, states, targets_BC, mixers_BC=drop_BC, counted_BC=counted_BC
        )
        weights, state, _ = reader.levels.step(weights, state, grads)
        return (weights, state, part.states), None

    carry = weights, state, reader.empty_states(1, ids_BT.shape[1])
    (weights, state, _), _ = jax.lax.scan(read, carry, tuple(xs))
    return weights, state
