"""From the configuration of a task to the task: one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hope_jax.config.tasks import MQARConfig, TaskConfig
from hope_jax.data.tasks.mqar import MQAR
from hope_jax.data.tasks.task import Task

_TASKS: dict[type, Callable[[Any, int], Task]] = {
    MQARConfig: MQAR,
}


def make_task(config: TaskConfig, length: int) -> Task:
    """The task of this configuration, with texts of `length` tokens.

    Raises:
      ValueError: the length does not fit the task.

    >>> make_task(MQARConfig(), 64).symbols[:3]
    ('.', 'k0', 'k1')
    """
    return _TASKS[type(config)](config, length)
