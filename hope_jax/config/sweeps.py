"""Sweeps: points of a grid, as configurations with names.

An experiment file has a function `sweep()` that gives the points, each a dict from dotted
fields to values, as for `override`. The entry "variant" is handed to `get_config`::

    from hope_jax.config import grid

    def sweep():
        yield from grid({"variant": ["hope", "transformer"], "optim.lr": [1e-3, 3e-3]})
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hope_jax.config.check import require
from hope_jax.config.load import (
    as_it_is,
    call,
    config_of,
    finish_of,
    load_names,
    split_variant,
)
from hope_jax.config.overrides import override, parse_assignments
from hope_jax.config.train import TrainConfig

VARIANT = "variant"
LONGEST_NAME = 120  # folders of runs are named after their point


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
      name: from the changes, the same for as long as these are; a folder's name.
      changes: dotted field -> value, as `sweep()` gave them.
      base: the configuration that they change.
      sets: dotted field -> value, the overrides for all points, which have the last word.
      finish: `finish` of the file, which comes after all changes.
    """

    name: str
    changes: dict[str, Any]
    base: TrainConfig
    sets: dict[str, str] = dataclasses.field(default_factory=dict)
    finish: Callable[[TrainConfig], TrainConfig] = as_it_is

    @functools.cached_property
    def config(self) -> TrainConfig:
        """The run."""
        fields = {k: v for k, v in self.changes.items() if k != VARIANT}
        return self.finish(override(self.base, {**fields, **self.sets, "name": self.name}))


def grid(axes: Mapping[str | tuple[str, ...], Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of values, the last axis fastest.

    Several fields as one key take the same value, as the two seeds of a run do.

    >>> [*grid({"variant": ["hope"], ("seed", "data.seed"): [0, 1]})]
    ... # doctest: +NORMALIZE_WHITESPACE
    [{'variant': 'hope', 'seed': 0, 'data.seed': 0},
     {'variant': 'hope', 'seed': 1, 'data.seed': 1}]
    """
    for values in itertools.product(*axes.values()):
        point: dict[str, Any] = {}
        for fields, value in zip(axes, values, strict=True):
            names = (fields,) if isinstance(fields, str) else fields
            point |= dict.fromkeys(names, value)
        yield point


def load_sweep(path: str, sets: Sequence[str] = ()) -> list[Point]:
    """The points of an experiment file's `sweep()`, in its order.

    Args:
      path: a Python file with `sweep()`; `FILE:NAME` calls `sweep("NAME")`.
      sets: overrides for all points, as on the command line, e.g. `["steps=10"]`.

    Raises:
      ValueError: the file has no sweep, a point does not fit (named by its number), or two
        points are the same.
    """
    name, variant = split_variant(path)
    file, names = load_names(name)
    require(
        callable(names.get("sweep")),
        f"{file} has no function sweep(); define one that yields dicts of changes, e.g. "
        f"from hope_jax.config.grid",
    )
    finish = finish_of(file, names)
    variant_config = functools.cache(lambda variant: config_of(file, names, variant))
    points: dict[str, Point] = {}
    for number, changes in enumerate(call(lambda *a: [*names["sweep"](*a)], variant, file)):
        require(
            isinstance(changes, dict),
            f"{file}: point {number} of sweep() is {changes!r}; give a dict of changes",
        )
        point = _point(file, number, changes, sets, variant_config, finish)
        require(
            point.name not in points,
            f"{file}: two points of sweep() are the same: {changes}",
        )
        points[point.name] = point
    require(bool(points), f"{file}: sweep() gives no point")
    for field, value in parse_assignments(list(sets)).items():
        swept = dict.fromkeys(repr(point.changes.get(field)) for point in points.values())
        require(
            len(swept) == 1,
            f"--set {field}={value}: {file} varies {field} between points, {', '.join(swept)}, "
            "and they would be the same run under several names; leave it out, or change "
            "sweep()",
        )
    return [*points.values()]


def changed(point: Point, changes: Mapping[str, Any]) -> Point:
    """The point with more changes, before which its own and its sets give way.

    Raises:
      ValueError: a change does not fit.
    """
    sets = {k: v for k, v in point.sets.items() if k not in changes}
    changes = {**point.changes, **changes}
    made = Point(point_name(changes), changes, point.base, sets, point.finish)
    _ = made.config  # its mistakes are told here
    return made


def point_name(changes: Mapping[str, Any]) -> str:
    """What a point is called, from its changes.

    >>> point_name({"variant": "hope", "optim.lr": 3e-3, "seed": 0, "data.seed": 0})
    'hope-lr_0.003-seed_0'
    >>> point_name({"optim.rule": {"type": "m3", "period": 4}, "model.cms.periods": (1, 8)})
    'rule_m3+period_4-periods_1+8'
    """
    parts, seen = [], set()
    for field, value in changes.items():
        last = field.split(".")[-1]
        part = _plain(value) if field == VARIANT else f"{last}_{_plain(value)}"
        # Fields of the same last name and value, such as the two seeds, are one part.
        if part not in seen:
            seen.add(part)
            parts.append(part)
    name = "-".join(parts) or "base"
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(repr(sorted(changes.items())).encode()).hexdigest()[:8]
        name = f"{name[: LONGEST_NAME - 9]}-{digest}"
    return name


def _point(
    file: Path,
    number: int,
    changes: dict[str, Any],
    sets: Sequence[str],
    variant_config: Callable[[str], TrainConfig],
    finish: Callable[[TrainConfig], TrainConfig],
) -> Point:
    changes = dict(changes)
    try:
        base = variant_config(changes.get(VARIANT, ""))
        parsed = parse_assignments(list(sets))
        point = Point(point_name(changes), changes, base, parsed, finish)
        _ = point.config  # its mistakes are told here
    except ValueError as error:
        raise ValueError(f"{file}: point {number} of sweep(), {changes}: {error}") from None
    return point


def _plain(value: Any) -> str:
    """A value as part of a folder's name."""
    if isinstance(value, Mapping):
        fields = [_plain(v) if k == "type" else f"{k}_{_plain(v)}" for k, v in value.items()]
        return "+".join(fields)
    if isinstance(value, (list, tuple)):
        return "+".join(_plain(item) for item in value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", text)
