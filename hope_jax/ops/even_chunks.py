"""Time in chunks of one size, of which the last is filled up with zeros.

For recurrences whose result does not depend on where chunks begin, so that each piece of text
starts with a new one; where it does, see `hope_jax.ops.chunks`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def split_time(x_BT: jax.Array, chunk: int) -> jax.Array:
    """`[B, T, ...]` to `[N, B, C, ...]` with C = `chunk`.

    >>> split_time(jnp.arange(5)[None], 2)[:, 0].tolist()
    [[0, 1], [2, 3], [4, 0]]
    """
    batch, length = x_BT.shape[:2]
    count = -(-length // chunk)
    padding = [(0, 0), (0, count * chunk - length)] + [(0, 0)] * (x_BT.ndim - 2)
    parts = jnp.pad(x_BT, padding).reshape(batch, count, chunk, *x_BT.shape[2:])
    return jnp.moveaxis(parts, 1, 0)


def join_time(x_NBC: jax.Array, length: int) -> jax.Array:
    """Inverse of `split_time`: the first `length` tokens, `[B, T, ...]`."""
    x_BNC = jnp.moveaxis(x_NBC, 0, 1)
    return x_BNC.reshape(x_BNC.shape[0], -1, *x_BNC.shape[3:])[:, :length]


def filled_up(length: int, chunk: int) -> jax.Array:
    """`[N, C]`, True where `split_time` puts no token.

    >>> filled_up(5, 2).tolist()
    [[False, False], [False, False], [False, True]]
    """
    count = -(-length // chunk)
    return jnp.arange(count * chunk).reshape(count, chunk) >= length
