"""Configuration of bAbI stories that are hidden in books."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import require
from hope_jax.config.tasks.base import Answers, BaseTask


@dataclasses.dataclass(frozen=True)
class BabilongConfig(BaseTask):
    """The facts of a bAbI story between the sentences of a long text (arXiv 2406.10149).

    Facts keep their order; the question stands at the end. The text is that of `data.path`.
    Stories are read from a folder with the files of bAbI v1.0 (arXiv 1502.05698), such as
    `qa1_single-supporting-fact_train.txt`: training takes those of `_train.txt`, held-out
    examples those of `_test.txt`.
    """

    type: ClassVar[str] = "babilong"
    answers: ClassVar[Answers] = "next"
    judged: ClassVar[Literal["token", "example"]] = "example"
    over: ClassVar[Literal["symbols", "text"]] = "text"

    stories: str | None = None  # the folder
    tasks: tuple[int, ...] = (1,)  # of the twenty; an example is of each as often
    facts: int | None = None  # questions after more facts are left out; None: none

    def __post_init__(self):
        super().__post_init__()
        wrong = [number for number in self.tasks if not 1 <= number <= 20]
        require(
            bool(self.tasks) and not wrong and len(set(self.tasks)) == len(self.tasks),
            f"task.tasks is {list(self.tasks)}; name some of 1 to 20, each once",
        )
        require(
            self.facts is None or self.facts >= 1,
            f"task.facts is {self.facts}; use at least 1, or None for all",
        )
