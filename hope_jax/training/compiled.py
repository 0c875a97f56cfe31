"""The training step, lowered for the shapes and the devices of a run."""

from __future__ import annotations

import functools

import jax
from jax.sharding import Mesh

from hope_jax.config import TrainConfig
from hope_jax.config.tasks import answers_of
from hope_jax.models import LanguageModel
from hope_jax.nested import Levels
from hope_jax.parallel import batch_sharding, replicated
from hope_jax.training.objective import token_losses
from hope_jax.training.state import TrainState
from hope_jax.training.step import make_step


def lower_step(
    config: TrainConfig, levels: Levels, mesh: Mesh, state: TrainState
) -> jax.stages.Lowered:
    """The step `(state, batch) -> (state, metrics)` for this mesh, inside of `use_mesh`.

    The state, or its shapes from `abstract_state`, is donated. Compiled, the step takes these
    shapes and places alone: a run cannot recompile. The devices of the mesh need not exist;
    see `hope_jax.aot`.
    """
    model = LanguageModel(config.model)
    step = make_step(functools.partial(token_losses, model), levels, config)
    rows, length = config.data.batch, config.data.length
    place = batch_sharding(mesh)
    array = lambda width, kind: jax.ShapeDtypeStruct((rows, width), kind, sharding=place)
    batch = {"tokens": array(length + 1, "int32"), "reset": array(length, "bool")}
    if config.data.task is not None:
        batch["weight"] = array(length, "float32")
        batch.setdefault(answers_of(config.data.task), array(length, "int32"))
    places = jax.tree.map(lambda x: x.sharding, state)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, replicated(mesh)))
    return jitted.lower(state, batch)
