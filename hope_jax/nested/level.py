"""One level: parameters that share an update frequency, and what updates them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import optax

from hope_jax.nested.paths import Selector, flatten, matches

# Ticks are counted modulo a multiple of the slowest period below this bound (int32).
MAX_PERIOD = 2**30


@dataclasses.dataclass(frozen=True)
class Level:
    """Parameters, the optax transformation that updates them, and how often it does.

    Attributes:
      name: key of the level's state; unique.
      period: ticks per update. What a tick is (a token, a chunk, a training step) is up
        to the caller.
      tx: any optax transformation. Its schedules count this level's updates, not ticks.
      params: which parameters. A predicate on the path ("blocks/cms/period_8/w_in"), one
        or several regular expressions for the start of the path (`paths.matches`), or
        None: everything that no other level takes.
      reduction: whether `tx` sees the sum of the period's gradients (Eq. 71) or their mean.
      reset_to_init: the nested CMS (Eq. 72). At the end of the next slower level's
        period the parameters return to their initial value, and that value belongs to the
        slower level: its `tx` updates it, first order, on this level's gradients summed
        over the slower period. The optimizer state of this level goes on.
    """

    name: str
    period: int
    tx: optax.GradientTransformation
    params: Selector = None
    reduction: Literal["sum", "mean"] = "sum"
    reset_to_init: bool = False

    def __post_init__(self):
        if not self.name or "/" in self.name:
            raise ValueError(f"level name {self.name!r}: use a non-empty name without '/'")
        whole = isinstance(self.period, int) and not isinstance(self.period, bool)
        if not whole or not 1 <= self.period <= MAX_PERIOD:
            raise ValueError(
                f"level {self.name!r} has period {self.period!r}; use a whole number of ticks "
                f"from 1 (every tick) to {MAX_PERIOD}"
            )
        if self.reduction not in ("sum", "mean"):
            raise ValueError(
                f"level {self.name!r} has reduction {self.reduction!r}; use 'sum' or 'mean'"
            )


def check_schedule(levels: Sequence[Level]) -> None:
    """Raise `ValueError` unless the levels run from fast to slow on dividing periods."""
    if not levels:
        raise ValueError("there is no level; name at least one, e.g. Level('all', 1, tx)")
    names = [level.name for level in levels]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two levels are named {name!r}; give each its own name")
    rest = [level.name for level in levels if level.params is None]
    if len(rest) > 1:
        raise ValueError(
            f"levels {rest[0]!r} and {rest[1]!r} both take the remaining parameters "
            f"(params=None); only one level can, so select those of the other"
        )
    for fast, slow in zip(levels, levels[1:], strict=False):
        if slow.period < fast.period:
            raise ValueError(
                f"level {slow.name!r} (period {slow.period}) stands after {fast.name!r} "
                f"(period {fast.period}); order the levels from fastest to slowest"
            )
        if slow.period % fast.period:
            below = slow.period // fast.period * fast.period
            raise ValueError(
                f"level {slow.name!r}: period {slow.period} is not a multiple of "
                f"{fast.period}, the period of the faster level {fast.name!r}; "
                f"use {below} or {below + fast.period}"
            )
        if fast.reset_to_init and slow.period == fast.period:
            raise ValueError(
                f"level {fast.name!r} has reset_to_init, but the next level {slow.name!r} has "
                f"the same period {slow.period}, so it would be reset at every update; put "
                f"{slow.name!r} first or give it a longer period"
            )
    if levels[-1].reset_to_init:
        raise ValueError(
            f"level {levels[-1].name!r} has reset_to_init, but no slower level holds its "
            f"initial value; add a slower level or drop reset_to_init"
        )


def assign(levels: Iterable[Level], params: Any) -> dict[str, list[str]]:
    """Paths of every level's parameters, by level name.

    Raises:
      ValueError: a parameter in two levels or in none, or a level without parameters.
    """
    levels = tuple(levels)
    rest = next((level.name for level in levels if level.params is None), None)
    chosen: dict[str, list[str]] = {level.name: [] for level in levels}
    for path in flatten(params):
        takers = [
            level.name
            for level in levels
            if level.params is not None and matches(level.params, path)
        ]
        if len(takers) > 1:
            raise ValueError(
                f"parameter {path!r} is in two levels, {takers[0]!r} and {takers[1]!r}; "
                f"narrow the `params` of one of them"
            )
        if not takers and rest is None:
            raise ValueError(
                f"parameter {path!r} is in no level; widen the `params` of "
                f"{', '.join(repr(level.name) for level in levels)}, or give one level "
                f"params=None to take what remains"
            )
        chosen[takers[0] if takers else rest].append(path)
    for level in levels:
        if not chosen[level.name]:
            some = ", ".join(list(flatten(params))[:5])
            raise ValueError(
                f"level {level.name!r} has no parameters: its `params` {level.params!r} take "
                f"none of the remaining ones; paths look like: {some}. Fix it or drop the level"
            )
    return chosen
