"""Configuration of state tracking."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import choose, require
from hope_jax.config.tasks.base import Answers, BaseTask

GROUPS = ("S3", "S4", "A4", "S5", "A5")


@dataclasses.dataclass(frozen=True)
class GroupConfig(BaseTask):
    """The product of all permutations so far, after each (Merrill et al. 2024).

    In S5 and A5 this is complete for NC1: no Transformer or linear recurrence of fixed depth
    with a diagonal transition can do it at every length (arXiv 2404.08819). `swaps` reads
    transpositions of two elements alone, from which a symmetric group is made.
    """

    type: ClassVar[str] = "group"
    answers: ClassVar[Answers] = "given"

    group: Literal["S3", "S4", "A4", "S5", "A5"] = "S5"
    swaps: bool = False

    def __post_init__(self):
        super().__post_init__()
        choose("task.group", self.group, *GROUPS)
        require(
            not self.swaps or self.group[0] == "S",
            f"task.swaps with task.group {self.group}: an alternating group has no swaps; "
            "use S3, S4 or S5",
        )
