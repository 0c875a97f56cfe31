"""An optimizer per level: the multi-rate outer update of a model with a CMS (Figure 5)."""

from __future__ import annotations

from typing import Any

import jax
import optax

from hope_jax.config import TrainConfig
from hope_jax.nested import Level, Levels
from hope_jax.optim.rules import transformation


def make(config: TrainConfig, params: Any, lr: jax.Array | None = None) -> Levels:
    """Levels of the outer optimizer, one per CMS period, each with a rule of its own.

    A tick is a training step. The level named `period_<p>` holds the CMS parameters under
    `.../cms/period_<p>`; everything else belongs to `period_1`. The gradient of a step is
    clipped as a whole before the levels sum it, and all schedules are measured in training
    steps. Which rule a level has, its schedule, decay and clipping is `optim`, or its entry
    in `optim.levels`.

    With the nested CMS variant (Eq. 72) all CMS levels but the slowest return to their
    initial values; a CMS level of period 1 is then apart, as `cms_period_1`, because
    everything else of period 1 does not return.

    Args:
      config: the run; `model.cms`, `optim` and `steps` are read.
      params: parameters or their shapes (`jax.eval_shape`), to check that they fit.
      lr: takes the place of `optim.lr`; may be traced, so that runs at several rates can be
        one program (`hope_jax.training.together`).

    Raises:
      ValueError: periods that cannot be run, a period in `optim.levels` that no level has,
        or parameters that do not have the levels of the configuration.
    """
    cms = config.model.cms
    periods = {1, *cms.periods}
    unknown = [level.period for level in config.optim.levels if level.period not in periods]
    if unknown:
        raise ValueError(
            f"optim.levels names period {unknown[0]}, which no level has; "
            f"the periods are {', '.join(map(str, sorted(periods)))}"
        )

    def plain(name: str, period: int, **where: Any) -> Level:
        reduction = config.optim.at(period).reduction
        tx = transformation(config.optim, config.steps, period, lr)
        return Level(name, period, tx, reduction=reduction, **where)

    def level(name: str, period: int) -> Level:
        resets = cms.variant == "nested" and period != cms.periods[-1]
        where = rf"(.*/)?cms/period_{period}"
        return plain(name, period, params=where, reset_to_init=resets)

    levels = [plain("period_1", 1)]
    for period in cms.periods:
        if period != 1:
            levels.append(level(f"period_{period}", period))
        elif cms.variant == "nested" and len(cms.periods) > 1:
            levels.append(level("cms_period_1", 1))
    clip = (
        optax.identity()
        if config.optim.clip is None
        else (optax.clip_by_global_norm(config.optim.clip))
    )
    made = Levels(tuple(levels), pre=clip)
    made.split(params)
    return made
