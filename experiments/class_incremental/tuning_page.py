"""What the page says of tuning: what was tried with what, what was best, where a grid ends."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from class_incremental.arms import NO_CLIP

Runs = list[dict[str, Any]]


def tuning(tuned: Runs, runs: Runs) -> list[str]:
    """Lines on all trials, a table for each set of conditions; none if nothing was tried."""
    if not tuned:
        return []
    lines = [
        "## Tuning",
        "",
        "Accuracy in percent at the end, on validation queries. *Best* is the best of an arm "
        "in a table, the first of equals, and where it has the lowest or highest value of a "
        "grid better ones may lie beyond; *measured* is what the figures above were measured "
        "with. Arms without trials were measured with the settings in "
        "experiments/class_incremental/arms.py.",
    ]
    groups: dict[tuple[str, str], Runs] = {}
    for one in tuned:
        groups.setdefault((one["dataset"], conditions(one)), []).append(one)
    for (dataset, words), tried in groups.items():
        measured = [run for run in runs if run["dataset"] == dataset]
        lines += ["", f"{dataset}, {words}.{_otherwise(tried, measured)}", ""]
        lines += ["| arm | settings | accuracy | |", "|---|---|---|---|"]
        for arm in dict.fromkeys(one["arm"] for one in tried):
            of_arm = [one for one in tried if one["arm"] == arm]
            used = [run["settings"] for run in measured if run["arm"] == arm]
            lines += _rows(arm, of_arm, used)
    return [*lines, ""]


def conditions(trial: dict[str, Any]) -> str:
    """What a trial was made with, but its settings."""
    count = len(trial["classes"])
    base = "base not recorded"
    if "base" in trial:
        base = (
            f"base {trial['base']} of {trial['base_steps']} steps, weights "
            f"{trial['base_sha256']}"
        )
    return (
        f"first {count} task{'s' * (count > 1)}, {sum(trial['classes'])} classes, "
        f"{trial['per_class']} examples and {trial['queries_per_class']} queries of each, seed "
        f"{trial['seed']}, {base}"
    )


def _otherwise(tried: Runs, measured: Runs) -> str:
    """With how many examples and tasks the arms were measured, where that is another number."""
    arms = {one["arm"] for one in tried}
    of_arms = [run for run in measured if run["arm"] in arms]
    texts = []
    for words, number in (
        ("examples of each class", lambda one: one["per_class"]),
        ("tasks", lambda one: len(one["classes"])),
    ):
        found = sorted({number(run) for run in of_arms})
        if found and found != [number(tried[0])]:
            texts.append(f"{', '.join(map(str, found))} {words}")
    return f" These arms were measured with {' and '.join(texts)}." if texts else ""


def _rows(arm: str, tried: Runs, used: list[dict[str, Any]]) -> list[str]:
    best = max(tried, key=lambda one: one["final"])
    rows = []
    for one in tried:
        settings = one["settings"]
        kept = {k: v for k, v in settings.items() if _matters(k, settings)}
        told = ", ".join(f"{k} {_short(v)}" for k, v in kept.items())
        remarks = ["best", *ends(best, tried)] if one is best else []
        remarks += ["measured"] * (settings in used)
        rows.append(f"| {arm} | {told} | {100 * one['final']:.1f} | {', '.join(remarks)} |")
    return rows


def ends(best: dict[str, Any], tried: Runs) -> list[str]:
    """Where the best trial is at an end of its grid, in words.

    Args:
      best: of the trials.
      tried: all of an arm under the same conditions.

    >>> one = lambda lr: {"settings": {"lr": lr, "passes": 1}, "changes": {"lr": lr}}
    >>> ends(one(1), [one(1), one(2), one(3)]), ends(one(2), [one(1), one(2), one(3)])
    (['lowest lr'], [])
    >>> ends(one([2, 6]), [one([1, 1]), one([2, 6]), one([2, 9])])
    ['highest lr of level 1']
    """
    grid = best["changes"]
    rest = lambda one: {k: v for k, v in one["settings"].items() if k not in grid}
    beside = [one["settings"] for one in tried if rest(one) == rest(best)]
    found = []
    for name in grid:
        here = _levels(best["settings"][name])
        if not all(isinstance(value, numbers.Real) for value in here):
            continue  # words have no order
        others = [values for one in beside if len(values := _levels(one[name])) == len(here)]
        of_levels = [_end(*both) for both in zip(here, zip(*others, strict=True), strict=True)]
        if len(set(of_levels)) == 1:
            found += [f"{of_levels[0]} {name}"] if of_levels[0] else []
            continue
        numbered = enumerate(of_levels, start=1)
        found += [f"{end} {name} of level {level}" for level, end in numbered if end]
    return found


def _end(value: float, tried: Sequence[float]) -> str:
    low, high = min(tried), max(tried)
    if low == high:
        return "only"
    return {low: "lowest", high: "highest"}.get(value, "")


def _levels(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _matters(name: str, settings: dict[str, Any]) -> bool:
    """Whether a setting does anything: those of levels without levels do not."""
    if name in ("chunks", "rule", "clip", "blocks"):
        return bool(settings["chunks"]) and settings[name] != NO_CLIP
    return name in ("lr", "passes") or (name == "strength" and settings[name] > 0)
