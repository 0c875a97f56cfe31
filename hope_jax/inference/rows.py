"""Rows of a batch of streams: some of one state, the others of another."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def choose(take_B: jax.Array, new: Any, old: Any, axis: int) -> Any:
    """The rows `take_B` of a tree of arrays, and the others of another tree.

    An array without that axis is shared by rows that are in step: they are all taken, or none.

    >>> choose(jnp.array([True, False]), jnp.ones((1, 2)), jnp.zeros((1, 2)), axis=1).tolist()
    [[1.0, 0.0]]
    """

    def one(new, old):
        if new.ndim <= axis:
            return jnp.where(take_B.any(), new, old)
        shape = [1] * new.ndim
        shape[axis] = -1
        return jnp.where(take_B.reshape(shape), new, old)

    return jax.tree.map(one, new, old)


def choose_of_mixers(take_B: jax.Array, new: Any, old: Any) -> Any:
    """The same of fast states of mixers.

    Rows come first, or after the axis of blocks where states are stacked.
    """
    return choose(take_B, new, old, axis=0 if isinstance(new, tuple) else 1)
