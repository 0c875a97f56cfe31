"""Configuration of the outer optimizer, as a whole and level by level."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from hope_jax.config.check import choose, require
from hope_jax.config.rules import AdamWRule, RuleConfig


@dataclasses.dataclass(frozen=True)
class LevelConfig:
    """What one level of the outer optimizer does otherwise than `OptimConfig` says.

    Attributes:
      period: which level: its training steps per update.
      rule: update rule; None: that of all.
      lr_factor: times `optim.lr`.
      warmup, schedule, end_lr, weight_decay: as in `OptimConfig`; None: that of all.
      clip: norm to which the level's own gradient is clipped, after it was summed over the
        period and beside `optim.clip`; None: not clipped again.
      reduction: whether the rule sees the sum of the period's gradients (Eq. 71) or their
        mean; to most rules here the scale makes no difference.
    """

    period: int
    rule: RuleConfig | None = None
    lr_factor: float = 1.0
    warmup: int | None = None
    schedule: Literal["cosine", "constant"] | None = None
    end_lr: float | None = None
    weight_decay: float | None = None
    clip: float | None = None
    reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self):
        where = f"optim.levels of period {self.period}"
        require(self.period >= 1, f"{where}: use at least 1 step")
        require(
            0 <= self.lr_factor < math.inf,
            f"{where}: lr_factor is {self.lr_factor}; use 0 or more",
        )
        require(
            self.clip is None or self.clip > 0, f"{where}: clip is {self.clip}; use None or > 0"
        )
        choose(f"{where}: reduction", self.reduction, "sum", "mean")
        _check(where + ":", self, optional=True)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Outer optimizer: a rule with warm-up and cosine decay, one state per level.

    `b1`, `b2` and `eps` are AdamW's, which also updates what is no matrix when the rule is
    another one.
    """

    rule: RuleConfig = AdamWRule()
    lr: float = 3e-3
    end_lr: float = 0.1  # final learning rate as a fraction of `lr`
    warmup: int = 100  # steps of linear warm-up
    schedule: Literal["cosine", "constant"] = "cosine"
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float | None = 1.0  # global gradient norm; None: no clipping
    # what single levels do otherwise, e.g. (LevelConfig(8, rule=M3Rule(), lr_factor=0.5),)
    levels: tuple[LevelConfig, ...] = ()

    def __post_init__(self):
        require(0 < self.lr < math.inf, f"optim.lr is {self.lr}; use a positive learning rate")
        require(
            self.clip is None or self.clip > 0, f"optim.clip is {self.clip}; use None or > 0"
        )
        for field in ("b1", "b2"):
            value = getattr(self, field)
            require(0 <= value < 1, f"optim.{field} is {value}; use 0 or more, and less than 1")
        require(0 <= self.eps < math.inf, f"optim.eps is {self.eps}; use 0 or more")
        _check("optim.", self)
        periods = [level.period for level in self.levels]
        for period in periods:
            require(
                periods.count(period) == 1,
                f"optim.levels speaks of period {period} more than once; say all of it in one",
            )

    def at(self, period: int) -> LevelConfig:
        """What holds for the level of this period, with nothing left open but `clip`."""
        own = next((x for x in self.levels if x.period == period), LevelConfig(period))
        common = ("rule", "warmup", "schedule", "end_lr", "weight_decay")
        filled = {name: getattr(self, name) for name in common if getattr(own, name) is None}
        return dataclasses.replace(own, **filled)


def _check(where: str, config: LevelConfig | OptimConfig, optional: bool = False) -> None:
    """Fields that both have; None stands for a value from elsewhere where `optional`."""
    dot = "" if where.endswith(".") else " "
    end_lr, warmup, decay = config.end_lr, config.warmup, config.weight_decay
    require(
        (optional and end_lr is None) or 0 <= end_lr <= 1,
        f"{where}{dot}end_lr {end_lr} is a fraction of lr: 0 to 1",
    )
    require(
        (optional and warmup is None) or warmup >= 0,
        f"{where}{dot}warmup is {warmup}; use 0 or more steps",
    )
    require(
        (optional and decay is None) or 0 <= decay < math.inf,
        f"{where}{dot}weight_decay is {decay}; use 0 or more",
    )
    if not (optional and config.schedule is None):
        choose(f"{where}{dot}schedule", config.schedule, "cosine", "constant")
