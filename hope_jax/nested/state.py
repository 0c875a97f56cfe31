"""What the engine carries from tick to tick, and what it reports."""

from __future__ import annotations

from typing import Any

import jax
from flax import struct


@struct.dataclass
class LevelState:
    """State of one level: nested dicts over this level's own parameters, arrays only.

    Attributes:
      opt_state: state of the level's optax transformation.
      grad_sum: gradient summed since the last update; `{}` at period 1.
      anchor: initial values of the next faster level where that one has `reset_to_init`
        (Eq. 72), else `{}`. They are parameters of this level: `opt_state` and
        `grad_sum` cover them too.
    """

    opt_state: Any
    grad_sum: Any
    anchor: Any


@struct.dataclass
class LevelsState:
    """State of all levels: one pytree whose parts can be saved level by level.

    Attributes:
      tick: int32 scalar, ticks so far, modulo a multiple of the slowest period.
      levels: `LevelState` by level name.
      pre: state of the transformation that is applied to the whole gradient.
    """

    tick: jax.Array
    levels: dict[str, LevelState]
    pre: Any


@struct.dataclass
class LevelInfo:
    """What one tick did to one level; all scalars.

    Attributes:
      grad_norm: float32, norm of this tick's gradient before `pre`.
      update_norm: float32, norm of the change; 0 away from the boundary.
      updated: bool, whether this tick was the level's boundary.
    """

    grad_norm: jax.Array
    update_norm: jax.Array
    updated: jax.Array
