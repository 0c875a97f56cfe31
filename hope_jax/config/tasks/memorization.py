"""Configuration of memorization."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hope_jax.config.check import require
from hope_jax.config.tasks.base import Answers, BaseTask


@dataclasses.dataclass(frozen=True)
class MemorizationConfig(BaseTask):
    """Keys whose values are the same in all texts, and in none of them: learnt in training.

    A task of MAD (256 symbols, 32 tokens, 256 training examples). After a key comes a mark, at
    which the value is asked.
    """

    type: ClassVar[str] = "memorization"
    answers: ClassVar[Answers] = "given"

    keys: int = 127
    values: int = 128

    def __post_init__(self):
        super().__post_init__()
        require(self.keys >= 1, f"task.keys is {self.keys}; use at least 1")
        require(self.values >= 2, f"task.values is {self.values}; use at least 2")
