"""From the configuration of a task to the task: one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hope_jax.config import tasks as config
from hope_jax.data.tasks.copying import Compression, Copying, Induction
from hope_jax.data.tasks.formal import Formal
from hope_jax.data.tasks.group import Group
from hope_jax.data.tasks.memorization import Memorization
from hope_jax.data.tasks.mqar import MQAR
from hope_jax.data.tasks.recall import Recall
from hope_jax.data.tasks.task import Task

_TASKS: dict[type, Callable[[Any, int], Task]] = {
    config.CompressionConfig: Compression,
    config.CopyingConfig: Copying,
    config.FormalConfig: Formal,
    config.GroupConfig: Group,
    config.InductionConfig: Induction,
    config.MemorizationConfig: Memorization,
    config.MQARConfig: MQAR,
    config.RecallConfig: Recall,
}


def make_task(task: config.TaskConfig, length: int) -> Task:
    """The task of this configuration, with texts of `length` tokens.

    Raises:
      ValueError: the length does not fit the task.

    >>> make_task(config.MQARConfig(), 64).symbols[:3]
    ('.', 'k0', 'k1')
    """
    return _TASKS[type(task)](task, length)
