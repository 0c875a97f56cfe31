"""The formal languages of the task: their strings, and what may follow each prefix."""

from __future__ import annotations

from typing import Protocol

import numpy as np

END = 0  # also fills what follows a string


class FormalLanguage(Protocol):
    """A language over symbols 1, 2, ...; symbol 0 is its end.

    Attributes:
      symbols: the name of each.
    """

    symbols: tuple[str, ...]

    def lengths(self, shortest: int, longest: int) -> np.ndarray:
        """Lengths that strings have, in this range."""

    def string(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """A random string of this length."""

    def legal(self, string: np.ndarray) -> np.ndarray:
        """After each symbol of a string, what may come next: the n-th symbol as bit n."""


class Parity:
    """Strings of 0 and 1 with an even number of ones."""

    symbols = ("end", "0", "1")

    def lengths(self, shortest: int, longest: int) -> np.ndarray:
        """Any."""
        return np.arange(shortest, longest + 1)

    def string(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Uniform among all; the last symbol makes it even."""
        ones = rng.integers(2, size=length)
        ones[-1] = ones[:-1].sum() % 2
        return 1 + ones

    def legal(self, string: np.ndarray) -> np.ndarray:
        """Both symbols always, the end after an even number of ones."""
        even = np.cumsum(string == 2) % 2 == 0
        return bits(even, 1, 1)


class Repeated:
    """Repetitions of one word: (aa)*, (abab)*."""

    def __init__(self, word: str):
        letters = sorted(set(word))
        self.symbols = ("end", *letters)
        self._word = np.array([1 + letters.index(letter) for letter in word])

    def lengths(self, shortest: int, longest: int) -> np.ndarray:
        """Multiples of the word's."""
        return multiples(len(self._word), shortest, longest)

    def string(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """The only one."""
        return np.resize(self._word, length)

    def legal(self, string: np.ndarray) -> np.ndarray:
        """The word's next symbol, and the end after a whole word."""
        after = np.arange(1, len(string) + 1) % len(self._word)
        follows = self._word[after]
        kinds = range(1, len(self.symbols))
        return bits(after == 0, *(follows == kind for kind in kinds))


class Counted:
    """As many of each letter, one kind after the other: a^n b^n, a^n b^n c^n."""

    def __init__(self, letters: str):
        self.symbols = ("end", *letters)
        self._kinds = len(letters)

    def lengths(self, shortest: int, longest: int) -> np.ndarray:
        """Multiples of the number of kinds."""
        return multiples(self._kinds, shortest, longest)

    def string(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """The only one."""
        return np.repeat(np.arange(1, self._kinds + 1), length // self._kinds)

    def legal(self, string: np.ndarray) -> np.ndarray:
        """The first letter for as long as it has not ended; the next at its turn."""
        n = len(string) // self._kinds
        after = np.arange(1, len(string) + 1)
        turns = [
            # the count is decided by the first letter: until then both it and the next may come
            (after < n + 1) if kind == 0 else (after >= kind * n) & (after < (kind + 1) * n)
            for kind in range(self._kinds)
        ]
        turns[1] = turns[1] | (after <= n)
        return bits(after == len(string), *turns)


class Shuffle:
    """Two kinds of brackets, each balanced, in any order: Shuffle-2."""

    symbols = ("end", "(", ")", "[", "]")

    def lengths(self, shortest: int, longest: int) -> np.ndarray:
        """Even ones."""
        return multiples(2, shortest, longest)

    def string(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Each kind's share is binomial, each kind uniform among its balanced strings."""
        pairs = rng.binomial(length // 2, 0.5)
        whole = np.empty(length, np.int64)
        mine = np.zeros(length, bool)
        mine[rng.choice(length, 2 * pairs, replace=False)] = True
        whole[mine] = balanced(pairs, rng)
        whole[~mine] = 2 + balanced(length // 2 - pairs, rng)
        return whole

    def legal(self, string: np.ndarray) -> np.ndarray:
        """Opening always, closing what is open, the end when nothing is."""
        opened = [
            np.cumsum(np.where(string == a, 1, np.where(string == a + 1, -1, 0)))
            for a in (1, 3)
        ]
        shut = (opened[0] == 0) & (opened[1] == 0)
        return bits(shut, 1, opened[0] > 0, 1, opened[1] > 0)


LANGUAGES: dict[str, FormalLanguage] = {
    "parity": Parity(),
    "aa": Repeated("aa"),
    "abab": Repeated("abab"),
    "anbn": Counted("ab"),
    "anbncn": Counted("abc"),
    "shuffle2": Shuffle(),
}


def multiples(size: int, shortest: int, longest: int) -> np.ndarray:
    """Multiples of `size` from `shortest` to `longest`, but not 0.

    >>> multiples(3, 4, 9).tolist()
    [6, 9]
    """
    return np.arange(max(-(-shortest // size), 1) * size, longest + 1, size)


def bits(*may_T) -> np.ndarray:
    """Sets as integers: bit n is the n-th argument, arrays or 0 or 1 for all places.

    >>> bits(np.array([True, False]), 1).tolist()
    [3, 2]
    """
    return sum(np.asarray(may, np.int64) << n for n, may in enumerate(may_T))


def balanced(pairs: int, rng: np.random.Generator) -> np.ndarray:
    """A uniform balanced string of 1 (open) and 2 (shut), by the cycle lemma.

    Of all turns of a string with one more opening than closing, exactly one stays above zero
    (Dvoretzky and Motzkin 1947); without its first opening it is balanced.

    >>> balanced(1, np.random.default_rng(0)).tolist()
    [1, 2]
    """
    steps = np.full(2 * pairs + 1, -1)
    steps[rng.choice(2 * pairs + 1, pairs + 1, replace=False)] = 1
    height = np.cumsum(steps)
    lowest = len(steps) - 1 - np.argmin(height[::-1])  # the last of the lowest places
    turned = np.roll(steps, -(lowest + 1))
    return np.where(turned[1:] == 1, 1, 2)
