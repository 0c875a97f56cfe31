"""Learning rates, measured in training steps whatever the level's period."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from hope_jax.config import OptimConfig


def learning_rate(config: OptimConfig, steps: int, period: int = 1) -> optax.Schedule:
    """Linear warm-up, then cosine decay to `end_lr * lr` at step `steps`, or constant.

    Args:
      config: `lr`, `end_lr`, `warmup`, `schedule`, and the factor of this period in
        `level_lr`.
      steps: training steps of the whole run.
      period: training steps per update of the level. The schedule's argument is the
        optimizer's own count of updates before this one, so that update n is the one at
        the end of training step (n + 1) * period: all levels follow one curve.

    Example:
      >>> config = OptimConfig(lr=1.0, end_lr=0.0, warmup=8)
      >>> float(learning_rate(config, steps=16)(3)), float(learning_rate(config, 16, 4)(0))
      (0.5, 0.5)
    """
    peak = config.lr * dict(config.level_lr).get(period, 1.0)

    def schedule(count):
        step = (jnp.asarray(count, jnp.float32) + 1) * period
        warm = jnp.minimum(step / max(config.warmup, 1), 1.0)
        if config.schedule == "constant":
            return peak * warm
        done = jnp.clip((step - config.warmup) / max(steps - config.warmup, 1), 0.0, 1.0)
        decay = config.end_lr + (1 - config.end_lr) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return peak * warm * decay

    return schedule
