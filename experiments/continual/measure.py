"""The measurements of one seed, on all its arms."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from continual.facts import Maker
from continual.recall import (
    by_streams,
    in_the_window,
    lived,
    ordinary,
    questions,
    without_anything,
)
from rich.progress import track

import hope_jax
from hope_jax.config.check import require
from hope_jax.models import count_params
from hope_jax.streams import Sleep, Stream
from hope_jax.training.identity import device, versions

COUNTS = (1, 2, 4, 8, 16, 32, 64)
DISTANCES = (0, 128, 512, 2048, 8192)
ASKED = 8
SLEEP = Sleep(
    steps=300,
    batch=4,
    replay="reservoir",
    task=1.0,
    distill=1.0,
    protect=12.0,
    samples=64,
    lr=2e-3,
)


def measure(
    folder: Path, seed: int, rows: int, sleepers: int, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Recall by number of facts and by distance, after sleep, and loss on ordinary text.

    Arms that are in `before`, what was measured of this seed, are not measured again; the
    others read the same texts.

    Raises:
      ValueError: nothing is left to measure, or `before` is of another number of streams.
    """
    before = before or {"rows": rows, "steps": {}}
    require(
        before["rows"] == rows,
        f"the arms before were measured on {before['rows']} streams per point, not on {rows}; "
        f"use --rows {before['rows']}, or remove the file to measure all of them",
    )
    arms = {
        path.name: hope_jax.load(path)
        for path in sorted(folder.iterdir())
        if path.name not in before["steps"]
    }
    require(len(arms) > 0, f"every arm in {folder} was measured: {', '.join(before['steps'])}")
    maker = Maker(next(iter(arms.values())).tokenizer, "test", 1000 + seed)
    awake = {
        name: Stream.open(arm)
        for name, arm in arms.items()
        if arm.config.model.cms.in_context.on
    }
    found: dict[str, Any] = {
        "seed": seed,
        "rows": rows,
        "sleepers": sleepers,
        "sleep": dataclasses.asdict(SLEEP),
        "steps": {name: arm.step for name, arm in arms.items()},
        "parameters": {
            name: count_params(arm.config.model).total for name, arm in arms.items()
        },
        "ordinary": {
            name: ordinary(arm.config.model, arm.params, maker) for name, arm in arms.items()
        },
        "versions": versions(),
        "device": device(),
    }

    def point(count: int, distance: int) -> dict[str, float]:
        texts, known = lived(maker, rows, count, distance)
        ids, marks = questions(maker, known, min(count, ASKED))
        here = {}
        for name, arm in arms.items():
            parts = (arm.config.model, arm.params)
            if name in awake:
                here[f"{name}, context dropped"] = by_streams(awake[name], texts, ids, marks)
                here[f"{name}, frozen"] = without_anything(*parts, ids, marks)
                continue
            here[f"{name}, context dropped"] = without_anything(*parts, ids, marks)
            if distance <= 512:  # longer than it was trained with, and slow
                few = slice(8)
                here[f"{name}, facts in the context"] = in_the_window(
                    *parts, texts[few], ids[few], marks[few]
                )
        return here

    found["by_count"] = {
        count: point(count, 0) for count in track(COUNTS, "by number of facts")
    }
    found["by_distance"] = {
        distance: point(16, distance) for distance in track(DISTANCES, "by distance")
    }
    found["after_sleep"] = [
        asleep(awake["cms"], maker, number)
        for number in track(range(sleepers if "cms" in awake else 0), "asleep")
    ]
    return _joined(before, found)


def _joined(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Both measurements as one; the origin is that of the first."""
    for key in ("steps", "parameters", "ordinary"):
        found[key] = before.get(key, {}) | found[key]
    for key in ("by_count", "by_distance"):
        points = {int(point): values for point, values in before.get(key, {}).items()}
        found[key] = {p: points.get(p, {}) | values for p, values in found[key].items()}
    for key in ("versions", "device", "sleepers", "after_sleep"):
        found[key] = before.get(key) or found[key]
    return found


def asleep(awake: Stream, maker: Maker, number: int) -> dict[str, float]:
    """One stream that reads 16 facts and sleeps."""
    stream = awake.copy()
    texts, known = lived(maker, 1, 16, 0)
    ids, marks = questions(maker, known, 16)
    before_text = ordinary(stream.model.config, stream.params, maker)
    told = by_streams(stream, texts, ids, marks)
    stream.read_ids(texts[0])
    report = stream.sleep(dataclasses.replace(SLEEP, seed=number), progress=False)
    config, params = stream.model.config, stream.params
    after_text = ordinary(config, params, maker)
    return {
        "recall awake": told,
        "recall after sleep": without_anything(config, params, ids, marks),
        "ordinary text, change": after_text / before_text - 1,
        "what was read, before": report.before,
        "what was read, awake": report.awake,
        "what was read, after": report.after,
        "own samples, change": report.base_after / report.base_before - 1,
        **{f"change of period {p}": c.slow for p, c in report.changes.items()},
    }
