"""Tune one field for every row of a sweep, and run the best value with more seeds."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import operator
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from hope_jax.config.check import require
from hope_jax.config.sweeps import Point, changed
from hope_jax.sweeps.collect import rating
from hope_jax.sweeps.runner import Crew, Ending, alike, is_finished
from hope_jax.training.workdir import SUMMARY

LONGEST_ROW = 8  # values of a row at most, however far away the best is


@dataclasses.dataclass(frozen=True)
class Row:
    """Points that differ in the tuned field alone.

    Attributes:
      name: what they have in common.
      points: by the field's value, ascending.
    """

    name: str
    points: tuple[Point, ...]


def rows_of(
    points: Sequence[Point], field: str, values: Sequence[float] | None = None
) -> list[Row]:
    """Points in rows of `field`, in the order of the sweep.

    Args:
      points: from `load_sweep`.
      field: its name.
      values: what rows have in place of the values of their points.

    Raises:
      ValueError: a point does not set `field`, or not to a positive number, or a row is too
        short to tell a direction.
    """
    rows: dict[str, tuple[str, list[Point]]] = {}  # from all other changes
    for point in points:
        require(
            field in point.changes,
            f"--tune {field}: the point {point.name} does not set it; its fields are "
            f"{', '.join(point.changes) or 'none'}",
        )
        value = point.changes[field]
        require(
            isinstance(value, (int, float)) and value > 0,
            f"--tune {field}: {point.name} sets it to {value!r}; use positive numbers",
        )
        rest = {k: v for k, v in point.changes.items() if k != field}
        name = ", ".join(map(str, rest.values())) or "all"
        rows.setdefault(repr(rest), (name, []))[1].append(point)
    if values is None:
        for _, row in rows.values():
            require(
                len(row) > 1,
                f"--tune {field}: {row[0].name} is alone in its row; give at least two values",
            )
            row.sort(key=lambda point: point.changes[field])
        return [Row(name, tuple(row)) for name, row in rows.values()]
    require(
        len(set(values)) > 1 and min(values) > 0,
        f"--tune {field}: {list(values)}; give at least two positive values",
    )
    return [
        Row(name, tuple(changed(row[0], {field: value}) for value in sorted(set(values))))
        for name, row in rows.values()
    ]


def tune_rows(
    rows: Sequence[Row],
    field: str,
    folder: Path,
    *,
    seeds: int = 1,
    at_once: int = 1,
    keep_checkpoints: bool = True,
    together: int = 1,
    say: Callable[[str], None] = print,
) -> list[Ending]:
    """Train every row, `at_once` of them side by side, each point in `folder/NAME`.

    A row goes on beyond its end, by the ratio of its last two values, for as long as the
    best `rating` is there (and up to `LONGEST_ROW` values, or to where the field's range
    ends); a run that fails counts as the worst. Then the best value is run with seeds 1, 2,
    ... besides its own. A row ends undecided where another process has one of its runs at work.

    With `together` every value is run with all seeds from the beginning, in one program, and
    the mean decides.

    Args:
      rows: from `rows_of`.
      field: the tuned field.
      folder: where the folders of the runs are; finished ones there are not run again.
      seeds: runs of the best value, its first included.
      at_once: rows at the same time.
      keep_checkpoints: False removes those of finished runs.
      together: up to so many runs are one program; see `hope_jax.training.together`.
      say: called with one line when a run begins or ends.

    Raises:
      ValueError: a folder holds a finished run of another configuration.
    """
    crew = Crew(folder, say, keep_checkpoints=keep_checkpoints)
    for row in rows:
        for point in row.points:
            is_finished(folder, point)  # before hours of training, not after them
    tune = lambda row: _tune(row, field, seeds, crew, folder, together, say)
    return [ending for endings in crew.each(tune, rows, at_once) for ending in endings]


def _tune(
    row: Row,
    field: str,
    seeds: int,
    crew: Crew,
    folder: Path,
    together: int,
    say: Callable[[str], None],
) -> list[Ending]:
    endings: list[Ending] = []
    ratings: dict[float, tuple[float, float]] = {}
    points = {point.changes[field]: point for point in row.points}
    every = range(seeds if together > 1 else 1)  # seeds of every value
    whole = isinstance(operator.attrgetter(field)(row.points[0].config), int)

    def run(some: Sequence[Point]) -> bool:
        """Whether all of them came to an end; not if one was stopped or is busy."""
        if together == 1:
            for point in some:
                endings.append(crew.run(point))
                if endings[-1].how == "stopped":
                    break
        else:
            for group in alike(some, together):
                endings.extend(crew.run_together(group))
        return all(ending.how not in ("stopped", "busy") for ending in endings)

    while True:
        new = {v: [_seeded(points[v], s) for s in every] for v in points if v not in ratings}
        if not run([point for seeded in new.values() for point in seeded]):
            busy = ", ".join(end.point.name for end in endings if end.how == "busy")
            if busy:
                say(f"{row.name}: undecided, since another process is training {busy}")
            return endings
        for value, seeded in new.items():
            of_seeds = [rating_of(folder / point.name) for point in seeded]
            ratings[value] = tuple(map(statistics.fmean, zip(*of_seeds, strict=True)))
        best = min(ratings, key=ratings.get)
        wrong, loss = ratings[best]
        if math.isinf(loss):
            say(f"{row.name}: every run failed, so there is nothing to tune")
            return endings
        values = sorted(points)
        beyond = _beyond(values, best, whole)
        if beyond is None or len(values) >= LONGEST_ROW:
            break
        try:
            points[beyond] = changed(points[best], {field: beyond})
        except ValueError as error:
            say(f"{row.name}: the row ends, since {field}={beyond:g} does not fit: {error}")
            break
    share = f", {100 * wrong:.2f} % wrong" if wrong else ""
    say(f"{row.name}: best at {field}={best:g}, held-out loss {loss:.4f}{share}")
    run([_seeded(points[best], seed) for seed in range(len(every), seeds)])
    return endings


def _seeded(point: Point, number: int) -> Point:
    """The point with the seed of this number: its own, then 1, 2, ... without its own."""
    if number == 0:
        return point
    own = point.config.seed, point.config.data.seed
    others = (seed for seed in itertools.count(1) if seed not in own)
    seed = next(itertools.islice(others, number - 1, None))
    return changed(point, {"seed": seed, "data.seed": seed})


def _beyond(values: Sequence[float], best: float, whole: bool = False) -> float | None:
    """The next value on the side of `best`, if that is an end of the row.

    With `whole`, numbers are whole, and one that rounds to the end or to 0 is none.

    >>> _beyond([0.001, 0.002, 0.004], 0.004), _beyond([0.001, 0.002, 0.004], 0.002)
    (0.008, None)
    >>> _beyond([10, 15], 15, whole=True), _beyond([1, 2], 1, whole=True)
    (22, None)
    """
    if best == values[-1]:
        beyond = best * best / values[-2]
    elif best == values[0]:
        beyond = best * best / values[1]
    else:
        return None
    beyond = round(beyond) if whole else float(f"{beyond:.4g}")  # so that names stay short
    return None if beyond in (0, *values) else beyond


def rating_of(workdir: Path) -> tuple[float, float]:
    """`rating` of a finished run; infinite if it is not finished or not a number."""
    try:
        found = rating(json.loads((workdir / SUMMARY).read_text()))
    except (OSError, ValueError, KeyError):
        return math.inf, math.inf
    return found if all(map(math.isfinite, found)) else (math.inf, math.inf)
