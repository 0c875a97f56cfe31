"""The part of `hope evaluate` that judges a model by a task (`data.task`)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from hope_jax.checkpoint.load import Loaded
from hope_jax.config.check import require
from hope_jax.data import TaskData, open_dataset
from hope_jax.evaluation import Measurement, Work
from hope_jax.evaluation.scorer import level_updates
from hope_jax.training.answers import AnswerEvaluator
from hope_jax.training.tests_of_task import other_data

NAME = "task"
EXAMPLES = 1000


def task_data(
    loaded: Loaded, sets: Sequence[str], batch: int, limit: int | None = None
) -> TaskData:
    """Held-out examples of the task that a model was trained on, with changes.

    Args:
      loaded: the model.
      sets: such as `data.length=512`.
      batch: examples at a time.
      limit: examples that are wanted; None: 1,000.

    Raises:
      ValueError: a change does not fit or is of something else, or there is no task.
    """
    config = other_data(loaded.config.data, sets, "--set")
    config = dataclasses.replace(config, batch=min(batch, limit or EXAMPLES))
    require(
        config.task is not None,
        "the model was trained on text and --tasks task judges by a task; choose one with "
        "--set data.task=NAME, whose symbols the model must know",
    )
    return open_dataset(config, loaded.tokenizer, split="validation")


def measure_task(
    loaded: Loaded, data: TaskData, limit: int | None, writes: bool, progress: Any
) -> list[Measurement]:
    """Right answers to held-out examples.

    Args:
      loaded: the model.
      data: from `task_data`.
      limit: examples that count; None: 1,000.
      writes: False reads without updates of memories.
      progress: told how far it is.
    """
    examples = limit or EXAMPLES
    batches = -(-examples // data.batch)
    progress.start(batches * data.batch)
    evaluator = AnswerEvaluator(loaded.model)
    found = evaluator(
        loaded.params,
        data,
        batches,
        writes=writes,
        examples=examples,
        on_batch=lambda: progress.advance(data.batch),
    )
    levels = level_updates(loaded.config.model, found.length) if writes else 0
    read = Work(
        rows=found.examples,
        tokens=found.examples * found.length,
        longest=found.length,
        scored=found.asked,
        memory_updates=found.write_events,
        level_updates=found.examples * levels,
    )
    name = f"{NAME} {data.source.config.type}"
    figure = functools.partial(Measurement, metric="acc", work=read, chance=found.chance)
    whole = figure(name, value=found.accuracy, items=found.examples, standard_error=found.error)
    by_depth = [
        figure(
            f"  at depth {part.start:.1f} to {part.stop:.1f}",
            value=part.accuracy,
            items=part.examples,
            standard_error=part.error,
        )
        for part in found.by_depth or ()
        if part.accuracy is not None
    ]
    return [whole, *by_depth]
