"""Words and values by rule: numbered, and some of the numbers held out."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from hope_jax.config.tasks.needle import HELD_OUT, SYLLABLES

_CONSONANTS, _VOWELS = "bdfhjklmnprstvz", "aeiou"
_GOLDEN = 0.6180339887498949


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The numbers below `size` that one split has; the other has the rest.

    Number n has rank n * step modulo `size`, and the lowest fifth of the ranks is held out.
    With a step near `size` over the golden ratio these numbers lie evenly among all, so that
    neither split lacks an end or a beginning.

    Attributes:
      size: how many numbers both splits have.
      held_out: which split.

    >>> sorted(Numbers(20, held_out=True).draw(np.random.default_rng(0), 4))
    [0, 11, 14, 17]
    """

    size: int
    held_out: bool

    @property
    def count(self) -> int:
        """Numbers of this split."""
        held_out = self.size // HELD_OUT
        return held_out if self.held_out else self.size - held_out

    @functools.cached_property
    def _back(self) -> int:
        """From a rank to its number: the inverse of the step."""
        step = max(1, int(self.size * _GOLDEN))
        while math.gcd(step, self.size) != 1:
            step += 1
        return pow(step, -1, self.size)

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """`count` different numbers, in no order; there must be so many."""
        first = 0 if self.held_out else self.size // HELD_OUT
        found = {}
        while len(found) < count:
            # sizes may exceed 64 bits; 256 make the remainder uniform for all that matters
            rank = first + int.from_bytes(rng.bytes(32), "little") % self.count
            found[rank * self._back % self.size] = None
        return list(found)


def word(number: int, syllables: int) -> str:
    """The word of a number below 75 ** syllables.

    >>> word(0, 2), word(75 + 1, 2), word(75**3 - 1, 3)
    ('baba', 'bebe', 'zuzuzu')
    """
    parts = []
    for _ in range(syllables):
        number, index = divmod(number, SYLLABLES)
        parts.append(_CONSONANTS[index // len(_VOWELS)] + _VOWELS[index % len(_VOWELS)])
    return "".join(parts)


def digits(number: int, count: int) -> str:
    """Decimal digits, zeros in front included.

    >>> digits(42, 5)
    '00042'
    """
    return f"{number:0{count}}"


def uuid(number: int) -> str:
    """32 hexadecimal digits in five groups.

    >>> uuid(0x1234567)
    '00000000-0000-0000-0000-000001234567'
    """
    text = f"{number:032x}"
    ends = (0, 8, 12, 16, 20, 32)
    return "-".join(text[a:b] for a, b in zip(ends, ends[1:], strict=False))
