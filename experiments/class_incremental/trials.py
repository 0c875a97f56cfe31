"""Trials of tuning: what they were made with, where they are kept, and which one decides."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from class_incremental.learners import Settings

import hope_jax
from hope_jax.inference.identity import digest

SEED, QUERIES, SPLIT = 100, 4, "validation"

ORIGIN = ("base", "base_steps", "base_sha256")  # of the conditions, which base it is

Facts = dict[str, Any]


def conditions(base: hope_jax.Loaded, dataset: str, per_class: int) -> Facts:
    """What a trial has to share with a measurement to decide its settings."""
    return {
        "dataset": dataset,
        "per_class": per_class,
        "queries_per_class": QUERIES,
        "seed": SEED,
        "split": SPLIT,
        "base": base.config.name,
        "base_steps": base.step,
        "base_sha256": digest(base.params),  # bases of one name need not be the same
    }


def file_of(out: Path, dataset: str, arm: str) -> Path:
    """Where the trials of an arm on a dataset are."""
    return out / "tuned" / f"{dataset}-{arm}.json"


def read(out: Path, dataset: str, arm: str) -> list[Facts]:
    """All trials of an arm on a dataset, in the order in which they were made.

    Raises:
      ValueError: there are trials that do not say of what base they are.
    """
    older = out / "tuned" / f"{arm}.json"
    if older.exists():
        raise ValueError(
            f"{older} has trials of an older form, which do not say with what base they were "
            "made; move it away and tune again (report.py reads it where it is)"
        )
    file = file_of(out, dataset, arm)
    return json.loads(file.read_text()) if file.exists() else []


def best(out: Path, arm: str, wanted: Facts) -> Settings | None:
    """The best settings under the `conditions` that are wanted, the first of equals.

    Of trials with few tasks and with many the latter decide. None: nothing was tried.

    Raises:
      ValueError: trials were made, but under other conditions.
    """
    done = read(out, wanted["dataset"], arm)
    if not done:
        return None
    alike = [one for one in done if agrees(one, wanted)]
    if not alike:
        other = {k: v for k, v in wanted.items() if any(one[k] != v for one in done)}
        found = "; ".join(
            dict.fromkeys(", ".join(f"{k} {one[k]}" for k in other) for one in done)
        )
        raise ValueError(
            f"{file_of(out, wanted['dataset'], arm)} has trials with {found}, and none with "
            f"{', '.join(f'{k} {v}' for k, v in other.items())}; --tune with these, or move "
            "the file away to measure with the settings in arms.py"
        )
    most = max(len(one["classes"]) for one in alike)
    tried = [one for one in alike if len(one["classes"]) == most]
    found = max(tried, key=lambda one: one["final"])["settings"]
    return Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})


def agrees(one: Facts, wanted: Facts) -> bool:
    """Whether a trial was made under the conditions that are wanted."""
    return all(one[name] == value for name, value in wanted.items())


def same(found: Facts, settings: Settings) -> bool:
    """Whether settings that were read from a file are these."""
    return found == json.loads(json.dumps(dataclasses.asdict(settings)))
