"""The protocol: a task is learned, then all classes so far are asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from class_incremental.classes import Task
from class_incremental.coding import Coder
from class_incremental.learners import Learner

Matrix = list[list[float]]  # after each task, by task that was asked


def measure(
    learner: Learner, found: Iterable[Task], coder: Coder, count: int
) -> dict[str, Any]:
    """Let a learner meet tasks, and ask after each.

    Args:
      learner: fresh.
      found: the tasks.
      coder: has the token of every class.
      count: how many tasks there are.

    Returns:
      `accuracy`: over all classes so far, after each task; None where it was not asked.
      `matrix`: the same of each earlier task, after each; empty where it was not asked.
      `forgetting`, `final`, `average`: see `forgetting_of`; the last, and the mean accuracy.
      `queries`: of the last. `seconds`: for learning, and for answering.
    """
    asked: list[Task] = []
    accuracy: list[float | None] = []
    matrix: Matrix = []
    seconds = {"learning": 0.0, "answering": 0.0}
    for number, task in enumerate(found, start=1):
        asked.append(task)
        begin = time.perf_counter()
        learner.learn(task)
        learned = time.perf_counter()
        seconds["learning"] += learned - begin
        if not learner.measured(number, count):
            accuracy.append(None)
            matrix.append([])
            continue
        right = ask(learner, asked, coder)
        seconds["answering"] += time.perf_counter() - learned
        accuracy.append(float(np.concatenate(right).mean()))
        matrix.append([float(one.mean()) for one in right])
    measured = [a for a in accuracy if a is not None]
    return {
        "accuracy": accuracy,
        "matrix": matrix,
        "final": accuracy[-1],
        "average": float(np.mean(measured)) if len(measured) == len(accuracy) else None,
        "forgetting": forgetting_of(matrix),
        "queries": sum(len(task.queries) for task in asked),
        "seconds": seconds,
    }


def ask(learner: Learner, asked: Sequence[Task], coder: Coder) -> list[np.ndarray]:
    """Whether each query of each task is answered rightly; a query does not tell its task."""
    queries = [query for task in asked for query in task.queries]
    labels = np.array([coder.labels[query.intent] for query in queries])
    right = np.asarray(learner.answer(queries)) == labels
    return np.split(right, np.cumsum([len(task.queries) for task in asked])[:-1])


def forgetting_of(matrix: Matrix) -> float | None:
    """By how much the accuracy on a task fell from its best to the end, mean over tasks.

    The last task is left out: nothing came after it. None where a row is missing.

    >>> forgetting_of([[1.0], [0.5, 0.75], [0.75, 0.25, 1.0]])
    0.375
    """
    if len(matrix) < 2 or not all(matrix):
        return None
    falls = [
        max(row[task] for row in matrix[task:]) - matrix[-1][task]
        for task in range(len(matrix) - 1)
    ]
    return float(np.mean(falls))
