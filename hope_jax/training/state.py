"""What a training run carries from step to step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hope_jax.checkpoint import Snapshot
from hope_jax.config import TrainConfig
from hope_jax.models import init_params
from hope_jax.nested import Levels, LevelsState


@struct.dataclass
class TrainState:
    """The arrays of a run.

    Attributes:
      step: int32, training steps done, skipped ones included.
      skipped: int32, steps that were not finite and changed nothing else.
      params: slow weights.
      levels: state of the outer optimizer, level by level.
    """

    step: jax.Array
    skipped: jax.Array
    params: Any
    levels: LevelsState


def init_state(config: TrainConfig, levels: Levels) -> TrainState:
    """State at step 0."""

    @jax.jit
    def init(key):
        params = init_params(config.model, key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, zero, params, levels.init(params))

    return init(jax.random.key(config.seed))


def abstract_state(config: TrainConfig, levels: Levels) -> TrainState:
    """Shapes of the state, placed on the default device; nothing is allocated."""
    shapes = jax.eval_shape(lambda: init_state(config, levels))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes
    )


def to_snapshot(
    state: TrainState, step: int, position: dict[str, Any], config: dict[str, Any]
) -> Snapshot:
    """The state as the items of a checkpoint."""
    loop = {
        "step": state.step,
        "skipped": state.skipped,
        "tick": state.levels.tick,
        "pre": state.levels.pre,
    }
    return Snapshot(step, state.params, dict(state.levels.levels), loop, position, config)


def from_snapshot(snapshot: Snapshot) -> TrainState:
    """Inverse of `to_snapshot`."""
    loop = snapshot.loop
    levels = LevelsState(loop["tick"], snapshot.levels, loop["pre"])
    return TrainState(loop["step"], loop["skipped"], snapshot.slow, levels)
