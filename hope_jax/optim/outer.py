"""AdamW per level: the multi-rate outer update of a model with a CMS (Figure 5)."""

from __future__ import annotations

from typing import Any

import jax
import optax

from hope_jax.config import TrainConfig
from hope_jax.nested import Level, Levels
from hope_jax.nested.paths import flatten
from hope_jax.optim.schedules import learning_rate

# Arrays that are vectors by meaning, whatever their rank (one per head, say).
_NOT_MATRICES = ("bias", "scale", "norm")


def make(config: TrainConfig, params: Any) -> Levels:
    """Levels of the outer optimizer, one per CMS period, with AdamW in each.

    A tick is a training step. The level named `period_<p>` holds the CMS parameters under
    `.../cms/period_<p>`; everything else belongs to `period_1`. The gradient of a step is
    clipped as a whole before the levels sum it, learning rates follow one curve over the
    training steps, and matrices decay.

    With the nested CMS variant (Eq. 72) all CMS levels but the slowest return to their
    initial values; a CMS level of period 1 is then apart, as `cms_period_1`, because
    everything else of period 1 does not return.

    Args:
      config: the run; `model.cms`, `optim` and `steps` are read.
      params: parameters or their shapes (`jax.eval_shape`), to check that they fit.

    Raises:
      ValueError: periods that cannot be run, a period in `optim.level_lr` that no level
        has, or parameters that do not have the levels of the configuration.
    """
    cms = config.model.cms
    periods = {1, *cms.periods}
    unknown = [p for p, _ in config.optim.level_lr if p not in periods]
    if unknown:
        raise ValueError(
            f"optim.level_lr names period {unknown[0]}, which no level has; "
            f"the periods are {', '.join(map(str, sorted(periods)))}"
        )

    def adamw(period: int) -> optax.GradientTransformation:
        return optax.adamw(
            learning_rate(config.optim, config.steps, period),
            b1=config.optim.b1,
            b2=config.optim.b2,
            eps=config.optim.eps,
            weight_decay=config.optim.weight_decay,
            mask=decays,
        )

    def level(name: str, period: int) -> Level:
        resets = cms.variant == "nested" and period != cms.periods[-1]
        return Level(
            name, period, adamw(period), rf"(.*/)?cms/period_{period}", reset_to_init=resets
        )

    levels = [Level("period_1", 1, adamw(1))]
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


def decays(params: Any) -> Any:
    """Which parameters decay: matrices, among them initial states of memories.

    Scales of norms and biases do not. Parameters below `blocks` are stacked over layers;
    that leading axis does not count.

    >>> leaf = jax.ShapeDtypeStruct((4, 8), "float32")
    >>> decays({"embed": {"table": leaf}, "blocks": {"norm": {"scale": leaf}}})
    {'blocks': {'norm': {'scale': False}}, 'embed': {'table': True}}
    """

    def decay(path: str, leaf: Any) -> bool:
        *folders, name = path.split("/")
        rank = leaf.ndim - ("blocks" in folders)
        return rank >= 2 and not any(word in name for word in _NOT_MATRICES)

    return jax.tree.unflatten(
        jax.tree.structure(params),
        [decay(path, leaf) for path, leaf in flatten(params).items()],
    )
