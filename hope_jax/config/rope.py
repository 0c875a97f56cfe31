"""Configuration of rotary positions beyond the length of pre-training."""

from __future__ import annotations

import dataclasses
import math

from hope_jax.config.check import require


@dataclasses.dataclass(frozen=True)
class RopeScalingConfig:
    """Slower rotations of the pairs that turn slowly, as Llama 3.1 has them.

    A pair whose wavelength is more than `context / low` tokens turns `factor` times slower,
    one of less than `context / high` as before, and those between in between.
    """

    factor: float = 1.0  # 1: off
    low: float = 1.0
    high: float = 4.0
    context: int = 8192  # tokens of the context before

    def __post_init__(self):
        where = "mixer.rope_scaling"
        require(
            1 <= self.factor < math.inf,
            f"{where}.factor is {self.factor}; use 1 (off) or more",
        )
        require(
            0 < self.low < self.high < math.inf,
            f"{where}.low {self.low} must be positive and below {where}.high {self.high}",
        )
        require(self.context >= 1, f"{where}.context is {self.context}; use at least 1 token")
