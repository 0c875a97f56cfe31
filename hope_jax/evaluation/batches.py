"""Which rows are read together, and which part of them only once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from hope_jax.evaluation.rows import Row


@dataclasses.dataclass(frozen=True)
class Unit:
    """Rows of one item, which stay together.

    Attributes:
      item: its number.
      rows: numbers of these rows in it.
      shared: tokens at their beginning that are the same and not scored, in whole steps.
      longest: tokens of the longest row.
    """

    item: int
    rows: tuple[int, ...]
    shared: int
    longest: int


def shared_tokens(rows: Sequence[Row], step: int) -> int:
    """Tokens that all rows begin with before any is scored, in whole steps.

    A single row shares with nobody.

    >>> rows = [Row(np.array([1, 2, 3, 4]), 3), Row(np.array([1, 2, 3, 5, 6]), 3)]
    >>> shared_tokens(rows, step=1), shared_tokens(rows, step=2), shared_tokens(rows[:1], 1)
    (3, 2, 0)
    """
    if len(rows) < 2:
        return 0
    most = min(row.start for row in rows)
    first_T = rows[0].ids_T[:most]
    for row in rows[1:]:
        differs_T = np.flatnonzero(row.ids_T[:most] != first_T)
        if len(differs_T):
            most = int(differs_T[0])
            first_T = first_T[:most]
    return most // step * step


def batches(
    items: Sequence[Sequence[Row]], width: int, step: int, tokens: int
) -> list[list[Unit]]:
    """Units of at most `width` rows together, the longest first.

    Units whose shared beginnings are about as long come together; the shorter one then counts
    for all. An item of more rows than `width` is cut.

    Args:
      items: rows by item.
      width: rows of a batch at most.
      step: beginnings are shared in whole steps of so many tokens.
      tokens: of the rows of a batch at most, where it has more than one unit.
    """
    units = []
    for number, rows in enumerate(items):
        for first in range(0, len(rows), width):
            part = rows[first : first + width]
            longest = max(len(row.ids_T) for row in part)
            numbers = tuple(range(first, first + len(part)))
            units.append(Unit(number, numbers, shared_tokens(part, step), longest))
    units.sort(key=lambda unit: (unit.shared, unit.longest), reverse=True)
    result: list[list[Unit]] = []
    rows = longest = 0
    for unit in units:
        rows, longest = rows + len(unit.rows), max(longest, unit.longest)
        if not result or rows > width or rows * longest > tokens:
            result.append([])
            rows, longest = len(unit.rows), unit.longest
        result[-1].append(unit)
    return result


def cut(tokens: int, sizes: Sequence[int]) -> list[int]:
    """Pieces that hold `tokens` tokens, of few different sizes; the last may have room left.

    Args:
      tokens: how many.
      sizes: largest first, each a multiple of the last.

    >>> cut(600, (512, 256, 128, 64)), cut(190, (512, 256, 128, 64))
    ([512, 128], [128, 64])
    """
    left, pieces = -(-tokens // sizes[-1]) * sizes[-1], []
    for size in sizes:
        pieces += [size] * (left // size)
        left %= size
    return pieces
