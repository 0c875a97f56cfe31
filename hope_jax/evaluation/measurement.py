"""What an evaluation says: a number, how sure it is, and what it came from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from hope_jax.evaluation.rows import Score


@dataclasses.dataclass(frozen=True)
class Work:
    """What was read for a measurement.

    Attributes:
      rows: texts that were read.
      tokens: of all of them; a beginning that several share counts for each.
      longest: tokens of the longest.
      scored: tokens whose probability counted.
      memory_updates: writes to the memories of mixers.
      level_updates: steps of CMS levels that learn within a text.
    """

    rows: int
    tokens: int
    longest: int
    scored: int
    memory_updates: int
    level_updates: int


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A figure of a model on a task.

    Attributes:
      task: which.
      metric: `acc`, `acc_n`, `perplexity`, ...
      value: the figure.
      items: questions, passages or documents.
      work: what was read.
      standard_error: of the value, from the spread over items; None: one item has none.
      chance: the value of a model that has not read the items; None: the metric has no such.
      parts: the same of parts of the task.
    """

    task: str
    metric: str
    value: float
    items: int
    work: Work
    standard_error: float | None = None
    chance: float | None = None
    parts: tuple[Measurement, ...] = ()


def work(scores: Sequence[Score]) -> Work:
    """What scores took together."""
    return together(
        [
            Work(1, s.length, s.length, s.tokens, s.memory_updates, s.level_updates)
            for s in scores
        ]
    )


def together(works: Sequence[Work]) -> Work:
    """All that was read in several works.

    >>> together([Work(1, 5, 5, 2, 0, 0), Work(2, 9, 6, 3, 1, 0)])
    Work(rows=3, tokens=14, longest=6, scored=5, memory_updates=1, level_updates=0)
    """
    return Work(
        rows=sum(work.rows for work in works),
        tokens=sum(work.tokens for work in works),
        longest=max((work.longest for work in works), default=0),
        scored=sum(work.scored for work in works),
        memory_updates=sum(work.memory_updates for work in works),
        level_updates=sum(work.level_updates for work in works),
    )


def mean(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error, the sample's standard deviation by the root of the count.

    >>> mean([1, 0, 0, 1, 1])
    (0.6, 0.24494897427831783)
    >>> mean([1])
    (1.0, None)
    """
    count = len(values)
    middle = math.fsum(values) / count
    if count < 2:
        return middle, None
    variance = math.fsum((value - middle) ** 2 for value in values) / (count - 1)
    return middle, math.sqrt(variance / count)


def ratio(tops: Sequence[float], bottoms: Sequence[float]) -> tuple[float, float | None]:
    """The sum of `tops` by that of `bottoms`, and its standard error over pairs of them.

    To first order: the spread of what each pair adds to the ratio (Cochran, Sampling
    Techniques, 3rd edition, 2.11).

    >>> ratio([2.0, 4.0], [1, 2])
    (2.0, 0.0)
    """
    count, whole = len(tops), math.fsum(bottoms)
    value = math.fsum(tops) / whole
    if count < 2:
        return value, None
    pairs = zip(tops, bottoms, strict=True)
    spread = math.fsum((top - value * bottom) ** 2 for top, bottom in pairs)
    return value, math.sqrt(spread * count / (count - 1)) / whole


def exp(value: float, error: float | None) -> tuple[float, float | None]:
    """`exp(value)` and its standard error to first order; infinite where it does not fit."""
    try:
        power = math.exp(value)
    except OverflowError:
        return math.inf, None
    return power, None if error is None else power * error
