"""Models of different kinds at the same number of parameters."""

from __future__ import annotations

import dataclasses
import functools

from hope_jax.config import ModelConfig, TrainConfig
from hope_jax.models.init import count_params


@functools.lru_cache(maxsize=1024)  # points of a sweep that differ in a rate have one model
def match_params(config: ModelConfig, target: int, tolerance: float = 0.01) -> ModelConfig:
    """Choose the CMS hidden width so that the model has about `target` parameters.

    The width is as round as the tolerance allows: a multiple of 128, 64, ... or 1 per
    level, which is what matrix units like.

    Args:
      config: the model; its `cms.hidden` is replaced.
      target: number of parameters.
      tolerance: largest relative difference.

    Raises:
      ValueError: no width comes near enough.
    """
    levels = len(config.cms.periods)

    def resized(hidden: int) -> ModelConfig:
        cms = dataclasses.replace(config.cms, hidden=hidden)
        return dataclasses.replace(config, cms=cms)

    base = count_params(resized(levels)).total
    per_unit = (count_params(resized(2 * levels)).total - base) / levels
    exact = (target - base) / per_unit + levels
    step = 128
    while step >= 1:
        unit = step * levels
        hidden = max(1, round(exact / unit)) * unit
        total = base + per_unit * (hidden - levels)
        if abs(total - target) <= tolerance * target:
            return resized(hidden)
        step //= 2
    raise ValueError(
        f"no CMS hidden width gives {target:,} parameters within {tolerance:.0%}: the model "
        f"has {base:,} at the smallest width, and {per_unit:,.0f} more per unit of width"
    )


def match_budget(config: TrainConfig, target: int) -> TrainConfig:
    """`match_params` for a whole run, unless it names its `model.cms.hidden`.

    For `finish` of an experiment file, where it comes after overrides.
    """
    if config.model.cms.hidden is not None:
        return config
    return dataclasses.replace(config, model=match_params(config.model, target))
