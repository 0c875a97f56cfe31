"""The programs that are compiled: the training step, and one token of generation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hope_jax.config import TrainConfig
from hope_jax.inference.apart import read_token, take_apart
from hope_jax.models import abstract_params, abstract_state, param_shapes
from hope_jax.optim import make
from hope_jax.parallel import batch_sharding, param_shardings
from hope_jax.training.compiled import lower_step
from hope_jax.training.state import abstract_state as abstract_train_state


def lower_training(
    config: TrainConfig, mesh: Mesh
) -> tuple[jax.stages.Lowered, dict[str, Any]]:
    """The training step, and the shapes of its arguments by component."""
    levels = make(config, abstract_params(config.model))
    state = abstract_train_state(config, levels, mesh)
    arguments = {"parameters": state.params, "optimizer": state.levels}
    return lower_step(config, levels, mesh, state), arguments


def lower_decoding(
    config: TrainConfig, mesh: Mesh
) -> tuple[jax.stages.Lowered, dict[str, Any]]:
    """One more token for `data.batch` streams that have read `data.length` tokens each."""
    model, rows = config.model, config.data.batch
    shapes, places = abstract_params(model), param_shardings(param_shapes(model), mesh)
    params = jax.tree.map(_placed, shapes, places)
    layer = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape[1:],
            x.dtype,
            sharding=NamedSharding(mesh, PartitionSpec(*x.sharding.spec[1:])),
        ),
        params["blocks"],
    )
    params = {**params, "blocks": (layer,) * model.depth}
    stacked = abstract_state(model, rows, config.data.length)
    state = jax.eval_shape(lambda state: take_apart(state, model.depth), stacked)
    heads = getattr(model.mixer, "heads", None)
    state = jax.tree.map(lambda x: _placed(x, _of_state(x, heads, mesh)), state)
    ids = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=batch_sharding(mesh))

    def step(params, state, id_B):
        logits_BW, state = read_token(model, params, state, id_B, True)
        return jnp.argmax(logits_BW, axis=-1).astype(jnp.int32), state

    places = jax.tree.map(lambda x: x.sharding, state)
    if any(x.shape != y.shape for x, y in _grown(step, params, state, ids)):
        places = None  # a cache that grows with every token
    jitted = jax.jit(step, donate_argnums=1, out_shardings=(ids.sharding, places))
    return jitted.lower(params, state, ids), {"parameters": params, "fast state": state}


def _grown(step, params, state, ids):
    after = jax.eval_shape(step, params, state, ids)[1]
    return zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True)


def _placed(x: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def _of_state(x: Any, heads: int | None, mesh: Mesh) -> NamedSharding:
    """Rows over the batch's axes, heads over `tensor`; arrays are `[B, H, ...]`, caches
    `[B, S, H, ...]`."""
    names: list[Any] = [None] * x.ndim
    if x.ndim:
        names[0] = ("data", "fsdp")
    for axis in (1, 2):
        if x.ndim > axis + 1 and x.shape[axis] == heads and heads % mesh.shape["tensor"] == 0:
            names[axis] = "tensor"
            break
    return NamedSharding(mesh, PartitionSpec(*names))
