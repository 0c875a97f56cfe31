"""Tasks by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hope_jax.config.check import require
from hope_jax.evaluation import blimp, choices, lambada, text
from hope_jax.evaluation.measurement import Measurement, together
from hope_jax.evaluation.task import Task

TASKS: dict[str, Task] = {}

# columns of the language-modelling tables of the paper: their mean is the last one
AVERAGE = (
    ("lambada", "acc"),
    ("piqa", "acc"),
    ("hellaswag", "acc_n"),
    ("winogrande", "acc"),
    ("arc_easy", "acc"),
    ("arc_challenge", "acc_n"),
    ("siqa", "acc"),
    ("boolq", "acc"),
)


def register(task: Task) -> None:
    """Make a task known under its name.

    Raises:
      ValueError: another has it.
    """
    require(task.name not in TASKS, f"there is a task {task.name!r} already")
    TASKS[task.name] = task


def chosen(names: Sequence[str], also: Sequence[str] = ()) -> list[Task]:
    """Tasks of these names, each once, in order.

    Args:
      names: of tasks here.
      also: names that a message tells of, though they are not here.

    Raises:
      ValueError: there is none of a name.
    """
    for name in names:
        known = ", ".join([*TASKS, *also])
        require(name in TASKS, f"there is no task {name!r}; choose from {known}")
    return [TASKS[name] for name in dict.fromkeys(names)]


def average(measurements: Sequence[Measurement]) -> Measurement | None:
    """Mean of the accuracies that the paper's tables average; None unless all are there."""
    found = {(m.task, m.metric): m for m in measurements}
    if not all(key in found for key in AVERAGE):
        return None
    columns, count = [found[key] for key in AVERAGE], len(AVERAGE)
    errors = [column.standard_error for column in columns]
    error = None
    if None not in errors:
        error = math.sqrt(math.fsum(e**2 for e in errors)) / count
    return Measurement(
        "average",
        "acc",
        math.fsum(column.value for column in columns) / count,
        sum(column.items for column in columns),
        together([column.work for column in columns]),
        error,
        math.fsum(column.chance for column in columns) / count,
    )


for _task in (text.TASK, lambada.TASK, blimp.TASK, *choices.TASKS.values()):
    register(_task)
