"""What a training run carries from step to step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from hope_jax.checkpoint import Snapshot
from hope_jax.config import TrainConfig
from hope_jax.models import init_params, param_shapes
from hope_jax.nested import Levels, LevelsState
from hope_jax.parallel import param_shardings, replicated, state_shardings


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


def init_state(
    config: TrainConfig, levels: Levels, like: TrainState, params: Any = None
) -> TrainState:
    """State at step 0, made where it will live: `like` is from `abstract_state`.

    With random weights, or with `params`, which are then its own.
    """
    places = jax.tree.map(lambda x: x.sharding, like)
    if params is not None:
        init = lambda params: _with(params, levels)
        return jax.jit(init, out_shardings=places, donate_argnums=0)(params)
    init = jax.jit(lambda key: _init(config, levels, key), out_shardings=places)
    return init(jax.random.key(config.seed))


def abstract_state(config: TrainConfig, levels: Levels, mesh: Mesh) -> TrainState:
    """Shapes of the state with their shardings; nothing is allocated.

    Raises:
      ValueError: the mesh cannot split the model; see `hope_jax.parallel.param_shardings`.
    """
    shapes = jax.eval_shape(lambda: _init(config, levels, jax.random.key(0)))
    params = param_shardings(param_shapes(config.model), mesh)
    beside = state_shardings(shapes.levels, shapes.params, params, mesh)
    places = TrainState(replicated(mesh), replicated(mesh), params, beside)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
    )


def _init(config: TrainConfig, levels: Levels, key: jax.Array) -> TrainState:
    return _with(init_params(config.model, key), levels)


def _with(params: Any, levels: Levels) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, params, levels.init(params))


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
