"""What a task is: examples made by rule, some of whose tokens are answers."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Example:
    """One text and what is to be answered.

    Attributes:
      inputs_T: int32 `[T]` token ids.
      targets_T: int32 `[T]` the answer after each token: its id, or for answers of the kind
        "legal" the tokens that may come next, the n-th as bit n. Anything where none is asked.
      asked_T: bool `[T]` where an answer is asked.
      last: the token that follows the text, for answers of the kind "next".
    """

    inputs_T: np.ndarray
    targets_T: np.ndarray
    asked_T: np.ndarray
    last: int = 0


class Task(Protocol):
    """A task of one configuration and length.

    Attributes:
      symbols: the name of every token id, without spaces.
      chance: share of right answers of a guess that has read nothing; None: the commonest
        answer of the examples at hand is that guess.
    """

    symbols: tuple[str, ...]
    chance: float | None

    def example(self, rng: np.random.Generator) -> Example:
        """Draw an example; all that is random in it comes from `rng`."""


def blank_example(length: int, fill: int = 0) -> Example:
    """An example of `fill` alone, without questions, to be written into."""
    return Example(
        inputs_T=np.full(length, fill, np.int32),
        targets_T=np.zeros(length, np.int32),
        asked_T=np.zeros(length, bool),
    )


def names(prefix: str, count: int) -> tuple[str, ...]:
    """Symbols for `count` tokens of one kind.

    >>> names("k", 3)
    ('k0', 'k1', 'k2')
    """
    return tuple(f"{prefix}{i}" for i in range(count))
