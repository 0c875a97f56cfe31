"""Learning rates, measured in training steps whatever the level's period."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from hope_jax.config import OptimConfig
from hope_jax.optim.dgd import DgdState

# By what their counts are for: correcting and weighing averages, or for schedules too.
_AVERAGES = (
    optax.EmaState,
    optax.FactoredState,
    optax.ScaleByAdamState,
    optax.ScaleByAmsgradState,
    optax.ScaleByBeliefState,
    optax.ScaleByLionState,
    optax.ScaleByNovogradState,
    optax.contrib.MuonState,
)
_SCHEDULED = (DgdState, optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)


def learning_rate(
    config: OptimConfig, steps: int, period: int = 1, lr: jax.Array | None = None
) -> optax.Schedule:
    """Linear warm-up, then cosine decay to `end_lr * lr` at step `steps`, or constant.

    Args:
      config: `lr`, and what holds at this period of `end_lr`, `warmup`, `schedule` and
        `lr_factor`.
      steps: training steps of the whole run.
      period: training steps per update of the level. The schedule's argument is the
        optimizer's own count of updates before this one, so that update n is the one at
        the end of training step (n + 1) * period: all levels follow one curve.
      lr: takes the place of `config.lr`; may be traced.

    Example:
      >>> config = OptimConfig(lr=1.0, end_lr=0.0, warmup=8)
      >>> float(learning_rate(config, steps=16)(3)), float(learning_rate(config, 16, 4)(0))
      (0.5, 0.5)
    """
    level = config.at(period)
    peak = (config.lr if lr is None else lr) * level.lr_factor

    def schedule(count):
        step = (jnp.asarray(count, jnp.float32) + 1) * period
        warm = jnp.minimum(step / max(level.warmup, 1), 1.0)
        if level.schedule == "constant":
            return peak * warm
        done = jnp.clip((step - level.warmup) / max(steps - level.warmup, 1), 0.0, 1.0)
        decay = level.end_lr + (1 - level.end_lr) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return peak * warm * decay

    return schedule


def start_at(opt_state: Any, updates: int) -> Any:
    """A fresh optimizer state whose schedules stand as after `updates` updates.

    What the optimizer averages still knows that it has seen nothing. Moved are the counts that
    schedules read: those of states that hold nothing else (a learning rate, a weight decay, a
    schedule in `optax.inject_hyperparams`), of `inject_hyperparams` itself, and of `dgd`.

    Raises:
      ValueError: a state whose count may be either, such as that of `optax.contrib.prodigy`.

    >>> tx = optax.adam(optax.linear_schedule(1.0, 0.0, 10))
    >>> state = start_at(tx.init({"w": jnp.ones(2)}), 4)
    >>> [int(count) for _, count in optax.tree.get_all_with_path(state, "count")]
    [0, 4]
    """

    def move(part):
        if not _counts(part) or isinstance(part, _AVERAGES):
            return part
        if part._fields != ("count",) and not isinstance(part, _SCHEDULED):
            raise ValueError(
                f"start_at does not know whether a schedule reads the count of "
                f"{type(part).__name__}; give the schedule to optax.scale_by_schedule or to "
                f"optax.inject_hyperparams"
            )
        inside = {name: start_at(getattr(part, name), updates) for name in part._fields}
        return part._replace(**inside | {"count": jnp.asarray(updates, jnp.int32)})

    return jax.tree.map(move, opt_state, is_leaf=_counts)


def _counts(part: Any) -> bool:
    return "count" in getattr(part, "_fields", ())
