"""`summary.json`: what a finished run was and what it can do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from hope_jax.checkpoint.whole_file import write_whole
from hope_jax.config import TrainConfig, to_dict
from hope_jax.parallel.processes import on_main
from hope_jax.training.identity import device, versions
from hope_jax.training.speed import Peak
from hope_jax.training.workdir import SUMMARY


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What the loop knows about a finished run.

    Attributes:
      cpu_seconds: of this run; of runs that are trained together its share.
      together: runs that were trained in one program (`hope_jax.training.together`); speed and
        time are then not those of a run of its own.
    """

    parameters: int
    steps: int
    skipped_steps: int
    compile_seconds: float
    training_flops_per_token: float
    wall_seconds: float
    cpu_seconds: float
    useful_seconds: float
    peak: Peak | None
    together: int = 1


def write_summary(
    config: TrainConfig, workdir: Path, facts: RunFacts, mesh: Mesh, found: dict[str, Any]
) -> dict[str, Any]:
    """Write `summary.json`, `found` after what is known of every run; returns its content."""
    summary = {
        "config": to_dict(config),
        "versions": versions(),
        "device": device(mesh),
        "seeds": {"parameters": config.seed, "data": config.data.seed},
        **dataclasses.asdict(facts),
        "goodput": facts.useful_seconds / max(facts.wall_seconds, 1e-9),
        "tokens": facts.steps * config.data.batch * config.data.length,
        **found,
    }
    on_main(lambda: write_whole(workdir / SUMMARY, json.dumps(summary, indent=2) + "\n"))
    return summary
