"""What comes of a trained model: the report on text, or that on a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from hope_jax.config import TrainConfig
from hope_jax.data import Batches
from hope_jax.models import LanguageModel
from hope_jax.training.report import report
from hope_jax.training.summary import RunFacts
from hope_jax.training.task_report import report_task


def conclude(
    config: TrainConfig,
    workdir: Path,
    facts: RunFacts,
    model: LanguageModel,
    params: Any,
    data: Batches,
    held_out: Batches,
    tests: dict[str, Any],
    evaluator: Any,
    mesh: Mesh,
    say: Callable[[str], Any],
) -> dict[str, Any]:
    """Evaluate, draw, tell, and write `summary.json`; returns its content.

    `tests` are those of `hope_jax.training.tests_of_task.open_tests`, none for text.
    """
    trained = (config, workdir, facts, model, params)
    if config.data.task is not None:
        return report_task(*trained, held_out, tests, evaluator, mesh, say)
    return report(*trained, data, held_out, evaluator, mesh, say)
