"""Configuration of formal languages."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import choose, require
from hope_jax.config.tasks.base import Answers, BaseTask

Language = Literal["parity", "aa", "abab", "anbn", "anbncn", "shuffle2"]
LANGUAGES = ("parity", "aa", "abab", "anbn", "anbncn", "shuffle2")


@dataclasses.dataclass(frozen=True)
class FormalConfig(BaseTask):
    """Which symbols may come next in a string of a formal language (Table 5 of the paper).

    The protocol of Bhattamishra et al. 2020 (arXiv 2009.11264): after every symbol the set of
    symbols that some string of the language goes on with is asked for, the end among them; a
    string is right if every set is. Lengths are uniform among those that the language has
    from `shortest` to `longest`; Table 5 has 2 to 50 in training and in its first bin, and
    longer ones in its second.

    `parity`: an even number of ones. `aa`, `abab`: (aa)*, (abab)*. `anbn`, `anbncn`: as many
    of each. `shuffle2`: two kinds of brackets, each balanced, shuffled into one another.
    """

    type: ClassVar[str] = "formal"
    answers: ClassVar[Answers] = "legal"
    judged: ClassVar[Literal["token", "example"]] = "example"

    language: Language = "parity"
    shortest: int = 2
    longest: int = 50

    def __post_init__(self):
        super().__post_init__()
        choose("task.language", self.language, *LANGUAGES)
        require(self.shortest >= 1, f"task.shortest is {self.shortest}; use at least 1")
        require(
            self.longest >= self.shortest,
            f"task.longest {self.longest} is below task.shortest {self.shortest}",
        )
