"""One training step: loss, gradients, and a tick of the levels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from hope_jax.config import TrainConfig
from hope_jax.nested import Levels
from hope_jax.optim import learning_rate
from hope_jax.parallel import within_a_copy
from hope_jax.training.finite import first_bad
from hope_jax.training.objective import merge
from hope_jax.training.state import TrainState

Batch = dict[str, jax.Array]
# (params, batch) -> (loss of every token [B, T], statistics)
Losses = Callable[[Any, Batch], tuple[jax.Array, dict[str, jax.Array]]]


def make_step(
    losses: Losses, levels: Levels, config: TrainConfig, lr: jax.Array | None = None
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The pure function `(state, batch) -> (state, metrics)`.

    A step of which the loss, the gradient, its norm or an update is not finite leaves the
    parameters and all optimizer states as they were and is counted in `state.skipped`. The
    metrics are scalars on the device; `bad_tensor` is an index into
    `finite.names(checked(...))`. `lr` is what `levels` were made with, where that is not
    `config.optim.lr`.
    """
    rate = learning_rate(config.optim, config.steps, lr=lr)

    def mean_loss(params, batch):
        loss_BT, stats = losses(params, batch)
        if "weight" in batch:  # of mean 1 in every row, so that parts of a batch count alike
            loss_BT = loss_BT * batch["weight"]
        return loss_BT.mean(), stats

    gradient = jax.value_and_grad(mean_loss, has_aux=True)

    def step(state: TrainState, batch: Batch):
        loss, stats, grads = _over_copies(gradient, state.params, batch, config.accumulate)
        params, level_states, info = levels.step(state.params, state.levels, grads)
        grad_norm = optax.tree.norm(grads)
        bad_tensor = first_bad(checked(state.params, loss, grads, grad_norm, info))
        ok = bad_tensor < 0
        kept = jax.tree.map(
            lambda new, old: jnp.where(ok, new, old),
            (params, level_states),
            (state.params, state.levels),
        )
        metrics = {
            "loss": loss,
            "grad_norm": grad_norm,
            "lr": rate(state.step - state.skipped),
            "bad_tensor": bad_tensor,
            "skipped": state.skipped + ~ok,
        }
        metrics |= {f"update_norm/{name}": i.update_norm for name, i in info.items()}
        metrics |= {f"stats/{name}": value for name, value in stats.items()}
        return TrainState(state.step + 1, metrics["skipped"], *kept), metrics

    return step


def checked(
    params: Any, loss: Any, grads: Any, grad_norm: Any, info: dict[str, Any]
) -> dict[str, Any]:
    """Everything that has to be finite, in the order in which a step computes it.

    The norm is, because the square of a finite gradient may not be: second moments would
    keep it, and updates be zero from there on.
    """
    return {
        "parameter": params,
        "loss": loss,
        "gradient of": grads,
        "norm of the gradient": grad_norm,
        "update of level": {name: level.update_norm for name, level in info.items()},
    }


def _over_copies(gradient, params: Any, batch: Batch, parts: int):
    """`_accumulate` in every copy of the model, and the mean over the copies.

    A copy reduces its gradients by parts first; only these cross copies, once a step. Left
    to itself the compiler sums whole gradients over all devices and then takes the parts.
    """
    if jax.sharding.get_abstract_mesh().shape.get("data", 1) == 1:
        return _accumulate(gradient, params, batch, parts)

    def in_a_copy(params, batch):
        with within_a_copy():
            loss, stats, grads = _accumulate(gradient, params, batch, parts)
        mean = functools.partial(jax.lax.pmean, axis_name="data")
        stats = jax.tree.map(lambda x: jax.lax.all_gather(x, "data"), stats)
        return mean(loss), merge(stats), jax.tree.map(mean, grads)

    return jax.shard_map(
        in_a_copy,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
        axis_names={"data"},
        check_vma=False,
    )(params, batch)


def _accumulate(gradient, params: Any, batch: Batch, parts: int):
    """Loss, statistics and gradient, averaged over `parts` micro-batches.

    Rows go to micro-batches in turns, so that every device has its share of each.
    """
    if parts == 1:
        (loss, stats), grads = gradient(params, batch)
        return loss, stats, grads

    def add(total, part):
        (loss, stats), grads = gradient(params, part)
        return jax.tree.map(jnp.add, total, grads), (loss, stats)

    micro = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    zeros = jax.tree.map(jnp.zeros_like, params)
    grads, (loss_N, stats) = jax.lax.scan(add, zeros, micro)
    return loss_N.mean(), merge(stats), jax.tree.map(lambda g: g / parts, grads)
