"""Configuration of needles in a haystack."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import choose, require
from hope_jax.config.tasks.base import Answers, BaseTask

FORMS = ("single_1", "single_2", "single_3", "multikey", "multivalue", "multiquery")
SYLLABLES = 75  # that the words are made of
HELD_OUT = 5  # of so many words and values one is held out


@dataclasses.dataclass(frozen=True)
class NeedleConfig(BaseTask):
    """A needle in a haystack, in the six forms of RULER (arXiv 2404.06654).

    A long text tells in one place the value of a key; at its end the value is asked. The text
    is that of `data.path`, but in `single_1` a few sentences again and again.

    - `single_1`, `single_2`: one needle with a number, in such noise and in real text.
    - `single_3`: one needle with a UUID, in real text.
    - `multikey`: several keys with a number each, and one of them is asked.
    - `multivalue`: one key with several numbers, and all are asked, in the order of the text.
    - `multiquery`: several keys with a number each, and all are asked.
    """

    type: ClassVar[str] = "niah"
    answers: ClassVar[Answers] = "next"
    judged: ClassVar[Literal["token", "example"]] = "example"
    over: ClassVar[Literal["symbols", "text"]] = "text"

    form: Literal[
        "single_1", "single_2", "single_3", "multikey", "multivalue", "multiquery"
    ] = "single_2"
    needles: int = 4  # of the forms with several
    digits: int = 7  # of a number
    syllables: int = 3  # of a key

    def __post_init__(self):
        super().__post_init__()
        choose("task.form", self.form, *FORMS)
        require(
            self.digits >= 2,  # of single digits some would never occur in training
            f"task.digits is {self.digits}; use at least 2",
        )
        require(self.syllables >= 1, f"task.syllables is {self.syllables}; use at least 1")
        require(self.needles >= 2, f"task.needles is {self.needles}; use at least 2")
        few = min(10**self.digits, SYLLABLES**self.syllables) // HELD_OUT
        require(
            self.needles <= few,
            f"task.needles is {self.needles}, and of the words of task.syllables "
            f"{self.syllables} or the numbers of task.digits {self.digits} only {few} are held "
            "out; use fewer needles or longer words and numbers",
        )
