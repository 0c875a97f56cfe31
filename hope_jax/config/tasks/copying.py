"""Configuration of selective copying, compression and induction."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hope_jax.config.check import require
from hope_jax.config.tasks.base import Answers, BaseTask


@dataclasses.dataclass(frozen=True)
class CopyingConfig(BaseTask):
    """Selective copying: symbols among blanks, to be told in order at the end.

    Gu and Dao 2023 (arXiv 2312.00752, Section 4.1.1), and a task of MAD with 16 symbols, 16 to
    copy and 256 tokens.
    """

    type: ClassVar[str] = "copying"
    answers: ClassVar[Answers] = "given"

    symbols: int = 14
    copied: int = 16  # symbols in a text

    def __post_init__(self):
        super().__post_init__()
        require(self.symbols >= 2, f"task.symbols is {self.symbols}; use at least 2")
        require(self.copied >= 1, f"task.copied is {self.copied}; use at least 1")


@dataclasses.dataclass(frozen=True)
class CompressionConfig(BaseTask):
    """A text of random symbols, to be told back from what the model holds after its last token.

    A task of MAD (16 symbols, 32 tokens). It needs `model.reconstruct`: every symbol is read
    off the vector at the last token, so nothing can be looked up in the text.
    """

    type: ClassVar[str] = "compression"
    answers: ClassVar[Answers] = "given"

    symbols: int = 15

    def __post_init__(self):
        super().__post_init__()
        require(self.symbols >= 2, f"task.symbols is {self.symbols}; use at least 2")


@dataclasses.dataclass(frozen=True)
class InductionConfig(BaseTask):
    """Induction: what followed a mark earlier follows it again, once, at the end.

    Gu and Dao 2023 (arXiv 2312.00752, Section 4.1.2): 16 symbols, 256 tokens in training and up
    to 2^20 in tests.
    """

    type: ClassVar[str] = "induction"
    answers: ClassVar[Answers] = "next"

    symbols: int = 16

    def __post_init__(self):
        super().__post_init__()
        require(self.symbols >= 2, f"task.symbols is {self.symbols}; use at least 2")
