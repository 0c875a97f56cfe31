"""What a task is: examples made by rule, some of whose tokens are answers."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from hope_jax.data.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Example:
    """One text and what is to be answered.

    Attributes:
      inputs_T: int32 `[T]` token ids.
      targets_T: int32 `[T]` the answer after each token: its id, or for answers of the kind
        "legal" the tokens that may come next, the n-th as bit n. Anything where none is asked.
      asked_T: bool `[T]` where an answer is asked.
      last: the token that follows the text, for answers of the kind "next".
      depth: where in the text around it what is asked stands, from 0 (the start) to 1; None
        if a task has no such place.
    """

    inputs_T: np.ndarray
    targets_T: np.ndarray
    asked_T: np.ndarray
    last: int = 0
    depth: float | None = None


class Task(Protocol):
    """A task of one configuration and length.

    Attributes:
      chance: share of right answers of a guess that has read nothing; None: that guess
        is the best answer that is the same for all examples at hand.
    """

    chance: float | None

    def example(self, rng: np.random.Generator) -> Example:
        """Draw an example; all that is random in it comes from `rng`."""


class SymbolTask(Task, Protocol):
    """A task with a vocabulary of its own.

    Attributes:
      symbols: the name of every token id, without spaces.
    """

    symbols: tuple[str, ...]


class TextTask(Task, Protocol):
    """A task set in prepared text, for one of its splits.

    Attributes:
      tokenizer: that of the text.
      source: hash of all that was read from files; with the configuration, it says which
        examples there are.
    """

    tokenizer: Tokenizer
    source: str


def blank_example(length: int, fill: int = 0) -> Example:
    """An example of `fill` alone, without questions, to be written into."""
    return Example(
        inputs_T=np.full(length, fill, np.int32),
        targets_T=np.zeros(length, np.int32),
        asked_T=np.zeros(length, bool),
    )


def text_example(text_T: np.ndarray, answer: int, depth: float | None) -> Example:
    """An example whose text ends with the answer.

    Args:
      text_T: int32 `[T]` the whole text.
      answer: how many of its last tokens are the answer.
      depth: as an example has it.

    >>> example = text_example(np.array([7, 8, 9, 5], np.int32), answer=2, depth=None)
    >>> example.targets_T[example.asked_T]
    array([9, 5], dtype=int32)
    """
    targets_T = np.append(text_T[1:], np.int32(0))  # nothing is asked of the last token
    asked_T = np.zeros(len(text_T), bool)
    asked_T[-answer - 1 : -1] = True
    return Example(text_T, targets_T, asked_T, depth=depth)


def names(prefix: str, count: int) -> tuple[str, ...]:
    """Symbols for `count` tokens of one kind.

    >>> names("k", 3)
    ('k0', 'k1', 'k2')
    """
    return tuple(f"{prefix}{i}" for i in range(count))
