"""What a text may do to the weights of the CMS."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hope_jax.inference.rows import choose
from hope_jax.layers.fast_weights import Weights, moving_levels
from hope_jax.models.in_context import Reader


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on what is learned; norms are fractions of that of a level's slow weights.

    Attributes:
      norm: of the fast weights of a level.
      change: of one update of a level, per token that it learns from.
      surprise: mean loss of a chunk, as a multiple of a uniform guess's (the logarithm of the
        vocabulary). What a model expects less than a guess would, with its fast weights and
        without, is noise to it, and learning noise costs it what it knows.

    >>> Limits(norm=0)
    Traceback (most recent call last):
      ...
    ValueError: limit norm is 0; use more than 0, or None for no limit
    """

    norm: float | None = 0.5
    change: float | None = 0.002
    surprise: float | None = 1.0

    def __post_init__(self):
        for name in ("norm", "change", "surprise"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(
                    f"limit {name} is {value}; use more than 0, or None for no limit"
                )


NO_LIMITS = Limits(None, None, None)


def is_noise(
    losses_BC: jax.Array, counted_BC: jax.Array, vocab_size: int, surprise: float
) -> jax.Array:
    """Whether the counted tokens of a chunk are less expected than they may be, `[B]`.

    >>> losses_BC = jnp.array([[3.0, 8.0], [9.0, 10.0]])
    >>> is_noise(losses_BC, jnp.ones((2, 2), bool), 768, 1.0).tolist()
    [False, True]
    """
    mean_B = jnp.mean(losses_BC, axis=1, where=counted_BC)
    return mean_B > surprise * math.log(vocab_size)


def within(
    reader: Reader,
    old: Weights,
    new: Weights,
    limits: Limits,
    returned: dict[str, jax.Array],
) -> Weights:
    """Updated fast weights `[blocks, B, ...]`, drawn back where they are past the limits.

    Args:
      reader: of the model.
      old: before the update.
      new: after it.
      limits: the limits.
      returned: `[B]` by level: it has just returned to its initial value (the nested CMS), and
        may have changed by more. Levels that are not in it have not.
    """
    chunks, result = moving_levels(reader.config), {}
    for level, matrices in new.items():
        slow = optax.tree.norm(reader.slow(level))
        if limits.change is not None:
            change = jax.tree.map(jnp.subtract, matrices, old[level])
            most = limits.change * chunks[level] * slow
            near = jax.tree.map(jnp.add, old[level], _drawn_back(reader, level, change, most))
            free_B = returned.get(level)
            matrices = near if free_B is None else choose(free_B, matrices, near, axis=1)
        if limits.norm is not None:
            matrices = _drawn_back(reader, level, matrices, limits.norm * slow)
        result[level] = matrices
    return result


def _drawn_back(reader: Reader, level: str, matrices: Any, most: jax.Array) -> Any:
    """Rows of at most this norm, as matrices that are added."""
    whole = reader.whole({level: matrices})[level]
    norm_B = jax.vmap(optax.tree.norm, in_axes=1)(whole)
    factor_B = jnp.where(norm_B > most, most / norm_B, 1.0)
    return jax.tree.map(lambda w: w * factor_B[None, :, None, None], matrices)
