"""Configuration of in-context recall: plain, noisy and fuzzy."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hope_jax.config.check import require
from hope_jax.config.tasks.base import Answers, BaseTask


@dataclasses.dataclass(frozen=True)
class RecallConfig(BaseTask):
    """Keys with values, over and over; the value of a key that was seen before is asked.

    Three tasks of MAD (Poli et al. 2024, arXiv 2403.17844, Appendix B): in-context recall;
    noisy recall, in which a share `noise` of the places holds symbols that mean nothing; fuzzy
    recall, in which keys and values are of one to `motif` symbols. Keys and values get their
    symbols and their mapping anew in every text.
    """

    type: ClassVar[str] = "recall"
    answers: ClassVar[Answers] = "next"

    keys: int = 8  # symbols of keys
    values: int = 8
    noise: float = 0.0
    noise_symbols: int = 16
    motif: int = 1

    def __post_init__(self):
        super().__post_init__()
        for field in ("keys", "values"):
            value = getattr(self, field)
            require(value >= 2, f"task.{field} is {value}; use at least 2")
        require(
            0 <= self.noise < 1, f"task.noise is {self.noise}; use a share from 0 to below 1"
        )
        require(
            self.noise_symbols >= 1,
            f"task.noise_symbols is {self.noise_symbols}; use at least 1",
        )
        require(
            1 <= self.motif <= min(self.keys, self.values),
            f"task.motif is {self.motif}; use 1 to {min(self.keys, self.values)}, as a motif "
            "has no symbol twice",
        )
