"""Products of per-token retention gates inside a chunk.

Every entry is a plain product of the gates in between, never a quotient or a difference
of logarithms: retention may be exactly 0, and a run of zeros costs no accuracy
elsewhere in the chunk.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def decay_products(alpha_C: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Products of gates between every two tokens and from the start.

    Args:
      alpha_C: `[..., C]` gates.

    Returns:
      `(between_CC, since_start_C)` with `between[r, i] = prod(alpha[i+1..r])` for
      `i <= r` and 0 above the diagonal, and `since_start[r] = prod(alpha[0..r])`.

    >>> import jax.numpy as jnp
    >>> between, since_start = decay_products(jnp.array([0.5, 0.25]))
    >>> between.tolist(), since_start.tolist()
    ([[1.0, 0.0], [0.25, 1.0]], [0.5, 0.125])
    """
    *lead, size = alpha_C.shape
    padded = 1 << (size - 1).bit_length()
    if padded != size:
        alpha = jnp.pad(alpha_C, [(0, 0)] * len(lead) + [(0, padded - size)])
        between, since_start = decay_products(alpha)
        return between[..., :size, :size], since_start[..., :size]
    # Blocks double in size: across two neighbours an entry is an outer product of the
    # head of the second and the tail of the first.
    between = jnp.ones((*lead, size, 1, 1), alpha_C.dtype)
    head = alpha_C[..., None]  # product from the block's start up to each token
    tail = jnp.ones_like(head)  # product from after each token to the block's end
    block = 1
    while block < size:
        pairs = size // (2 * block)
        p1, p2 = jnp.moveaxis(between.reshape(*lead, pairs, 2, block, block), -3, 0)
        h1, h2 = jnp.moveaxis(head.reshape(*lead, pairs, 2, block), -2, 0)
        t1, t2 = jnp.moveaxis(tail.reshape(*lead, pairs, 2, block), -2, 0)
        corner = h2[..., :, None] * t1[..., None, :]
        between = jnp.concatenate(
            [
                jnp.concatenate([p1, jnp.zeros_like(p1)], axis=-1),
                jnp.concatenate([corner, p2], axis=-1),
            ],
            axis=-2,
        )
        head = jnp.concatenate([h1, h1[..., -1:] * h2], axis=-1)
        tail = jnp.concatenate([t1 * h2[..., -1:], t2], axis=-1)
        block *= 2
    return between.reshape(*lead, size, size), head.reshape(*lead, size)


def shift(value_C: jax.Array, first: float) -> jax.Array:
    """Move values one token later; `first` enters at the front.

    >>> shift(jnp.array([0.5, 0.25]), 1.0).tolist()
    [1.0, 0.5]
    """
    start = jnp.full_like(value_C[..., :1], first)
    return jnp.concatenate([start, value_C[..., :-1]], axis=-1)


def shift_rows(value_CC: jax.Array) -> jax.Array:
    """Move rows one token later; zeros enter at the top.

    >>> shift_rows(jnp.array([[1.0, 0.0], [0.5, 1.0]])).tolist()
    [[0.0, 0.0], [1.0, 0.0]]
    """
    return jnp.concatenate(
        [jnp.zeros_like(value_CC[..., :1, :]), value_CC[..., :-1, :]], axis=-2
    )
