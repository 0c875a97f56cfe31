"""From the configuration of a level to its optax transformation."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import optax
from optax.contrib import scale_by_muon

from hope_jax.config import (
    AdamWRule,
    DeepMomentumRule,
    DeltaMomentumRule,
    LevelConfig,
    M3Rule,
    MuonRule,
    OptimConfig,
    RuleConfig,
)
from hope_jax.optim.decay import decays
from hope_jax.optim.deep_momentum import scale_by_deep_momentum
from hope_jax.optim.delta_momentum import scale_by_delta_momentum
from hope_jax.optim.m3 import scale_by_m3
from hope_jax.optim.matrices import Dims
from hope_jax.optim.mixed import matrices_and_rest
from hope_jax.optim.model_matrices import model_matrices
from hope_jax.optim.orthogonalize import orthogonalize
from hope_jax.optim.schedules import learning_rate


def transformation(
    config: OptimConfig, steps: int, period: int, lr: jax.Array | None = None
) -> optax.GradientTransformationExtraArgs:
    """The rule of the level with this period: own clipping, rule, weight decay, rate.

    Args:
      config: the outer optimizer.
      steps: training steps of the run, for the schedule.
      period: training steps per update of the level.
      lr: takes the place of `config.lr`; may be traced.
    """
    level = config.at(period)
    tx = _rule(config, level, learning_rate(config, steps, period, lr))
    if level.clip is None:
        return tx
    # a checkpoint knows this form (`hope_jax.checkpoint.manager`): a clip may come and go
    return optax.chain(optax.clip_by_global_norm(level.clip), tx)


def _rule(config: OptimConfig, level: LevelConfig, rate: optax.Schedule) -> Any:
    decay = {"weight_decay": level.weight_decay, "mask": decays}
    adam = {"b1": config.b1, "b2": config.b2, "eps": config.eps}
    if isinstance(level.rule, AdamWRule):
        return optax.adamw(rate, **decay, **adam)
    match level.rule:
        case MuonRule() as rule:
            scale = partial(
                _muon, beta=rule.momentum, nesterov=rule.nesterov, ns_steps=rule.steps
            )
        case M3Rule() as rule:
            scale = partial(scale_by_m3, **_without_rms(rule))
        case DeltaMomentumRule() as rule:
            value = optax.scale_by_rms(config.b2) if rule.value == "rms" else None
            scale = partial(scale_by_delta_momentum, **_without_rms(rule) | {"value": value})
        case DeepMomentumRule() as rule:
            scale = partial(_deep, **_without_rms(rule))
        case other:
            raise TypeError(f"no transformation for {type(other).__name__}")
    return matrices_and_rest(
        scale, rate, dims=model_matrices, match_rms=rule.rms, **decay, **adam
    )


def _muon(dims: Dims, **constants: Any) -> optax.GradientTransformation:
    return scale_by_muon(weight_dimension_numbers=dims, **constants)


def _deep(dims: Dims, output: str, **constants: Any) -> optax.GradientTransformation:
    deep = scale_by_deep_momentum(dims=dims, **constants)
    if output == "identity":
        return deep
    return optax.chain(deep, orthogonalize(dims=dims))


def _without_rms(rule: RuleConfig) -> dict[str, Any]:
    return {name: value for name, value in vars(rule).items() if name != "rms"}
