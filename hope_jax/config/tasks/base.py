"""What the configurations of all tasks have in common."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import require

# "next": the answer is the next token of the text. "given": it is not in the text, but a token
# given beside it. "legal": it is a set of tokens, those that may come next.
Answers = Literal["next", "given", "legal"]


def answers_of(task: BaseTask) -> str:
    """The array of a batch that the answers are in: "tokens", "targets" or "legal"."""
    return {"next": "tokens", "given": "targets", "legal": "legal"}[task.answers]


@dataclasses.dataclass(frozen=True)
class BaseTask:
    """Fields of every task.

    `answers` says what a model is to answer (see `Answers`), `judged` whether an example counts
    by its share of right answers ("token") or is right only if all of them are ("example"), and
    `over` whether a task has symbols of its own or is set in the text of `data.path`.
    """

    type: ClassVar[str]
    answers: ClassVar[Answers]
    judged: ClassVar[Literal["token", "example"]] = "token"
    over: ClassVar[Literal["symbols", "text"]] = "symbols"

    examples: int | None = None  # in training, read again and again; None: never the same

    def __post_init__(self):
        require(
            self.examples is None or self.examples >= 1,
            f"task.examples is {self.examples}; use at least 1, or None for new ones forever",
        )
