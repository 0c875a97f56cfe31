"""Configuration of multi-query associative recall."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hope_jax.config.check import require
from hope_jax.config.tasks.base import Answers, BaseTask


@dataclasses.dataclass(frozen=True)
class MQARConfig(BaseTask):
    """Multi-query associative recall (Arora et al. 2023, arXiv 2312.04927).

    A text begins with `pairs` keys, each followed by its value. Later every key comes once
    more, and the value is to be told. Where it comes follows a power law of `power` (small:
    mostly soon after the pairs), as repetitions in language do.
    """

    type: ClassVar[str] = "mqar"
    answers: ClassVar[Answers] = "given"

    pairs: int = 8
    keys: int = 64  # keys that exist
    values: int = 64
    power: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        require(self.pairs >= 1, f"task.pairs is {self.pairs}; use at least 1")
        require(
            self.keys >= self.pairs,
            f"task.keys {self.keys} is fewer than task.pairs {self.pairs}: a key has one value",
        )
        require(self.values >= 2, f"task.values is {self.values}; use at least 2")
        require(self.power > 0, f"task.power is {self.power}; use more than 0")
