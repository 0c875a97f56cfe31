"""Haystacks: long text that has nothing to do with what is asked, and things hidden in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hope_jax.data.prepared import PreparedSplit, more_text
from hope_jax.data.tokenizers import Tokenizer

REACH = 0.02  # how far a thing moves to stand between sentences, of the haystack
WORD = 12  # and between words, in tokens
_NOISE = (
    "Rain fell on the hills. A dog slept by the door. The kettle began to sing. "
    "Somebody closed a window. "
)


class Hay(Protocol):
    """Where a haystack comes from."""

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` tokens in a row, int32."""


class TextHay:
    """Text of a split, from anywhere in it; at its end it begins again.

    Marks that begin and end documents are left out.

    Args:
      text: the split.
      most: tokens that a haystack may have.

    Raises:
      ValueError: the split is shorter.
    """

    def __init__(self, text: PreparedSplit, most: int):
        info, tokenizer = text.info, text.tokenizer
        self._marks = [m for m in (tokenizer.begin_id, tokenizer.end_id) if m is not None]
        begins = 0 if tokenizer.begin_id is None else info.documents
        ends = 0 if tokenizer.end_id is None else info.documents + info.empty_documents
        plain = info.tokens - begins - ends
        if plain < most:
            raise ValueError(
                f"the {text.split} split of {text.folder} has {plain} tokens of "
                f"text, and a haystack has up to {most}; use a smaller data.length or "
                f"{more_text(text.split)}"
            )
        self._stream = text.stream

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` tokens in a row, int32."""
        start, found, parts = int(rng.integers(self._stream.tokens)), 0, []
        while found < count:
            stop = min(start + count - found, self._stream.tokens)
            some = self._stream.read(start, stop)[0]
            parts.append(some[~np.isin(some, self._marks)] if self._marks else some)
            start, found = stop % self._stream.tokens, found + len(parts[-1])
        return np.concatenate(parts or [np.zeros(0, np.int32)])


class NoiseHay:
    """A few sentences again and again."""

    def __init__(self, tokenizer: Tokenizer):
        self._round = np.asarray(tokenizer.encode(_NOISE), np.int32)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` tokens in a row, int32."""
        return np.resize(self._round, count)


class Gaps:
    """Where things may stand in a haystack: between sentences or words, if possible.

    Args:
      tokenizer: of the haystack.
    """

    def __init__(self, tokenizer: Tokenizer):
        texts = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
        flags = lambda test: np.array([bool(text) and test(text) for text in texts])
        self._ends_line = flags(lambda text: text.endswith(b"\n"))
        self._ends_sentence = flags(lambda text: text[-1:] in b".!?\"')")
        self._ends_word = flags(lambda text: text[-1:].isspace())
        self._begins_word = flags(lambda text: text[:1].isspace())

    def draw(self, rng: np.random.Generator, hay_T: np.ndarray, count: int) -> np.ndarray:
        """`count` places in ascending order: tokens of the haystack before each.

        A place is drawn uniformly, then moved to the nearest end of a sentence or line that
        is within `REACH`; else to that of a word within `WORD`; else not at all.
        """
        before, after = hay_T[:-1], hay_T[1:]
        begins = self._begins_word[after]
        sentences = self._ends_line[before] | (self._ends_sentence[before] & begins)
        words = self._ends_word[before] | begins
        kinds = (sentences, int(REACH * len(hay_T))), (words, WORD)
        drawn = rng.integers(len(hay_T) + 1, size=count)
        return np.sort([_nearest(int(place), kinds) for place in drawn])


def _nearest(place: int, kinds: Sequence[tuple[np.ndarray, int]]) -> int:
    """The gap nearest to a place, of the first kind that is within reach.

    The n-th flag of a kind is that of the place n + 1; the ends of a haystack are gaps.
    """
    if place in (0, len(kinds[0][0]) + 1):
        return place
    for flags, reach in kinds:
        first = max(1, place - reach)
        found = first + np.flatnonzero(flags[first - 1 : place + reach])
        if len(found):
            return int(found[np.abs(found - place).argmin()])
    return place


def hide(hay_T: np.ndarray, things: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """The haystack with things at places, in ascending order, that `Gaps.draw` gave.

    >>> hide(np.arange(4), [np.array([8, 8]), np.array([9])], np.array([1, 4]))
    array([0, 8, 8, 1, 2, 3, 9])
    """
    parts = np.split(hay_T, places)
    mixed = [parts[0]]
    for thing, rest in zip(things, parts[1:], strict=True):
        mixed += [thing, rest]
    return np.concatenate(mixed)


def depth_of(place: int, hay_T: np.ndarray) -> float:
    """How deep a place is in a haystack: 0 before all of it, 1 after."""
    return place / max(len(hay_T), 1)
