"""From the configuration of a task to the task: one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hope_jax.config.tasks import BabilongConfig, MQARConfig, NeedleConfig, TaskConfig
from hope_jax.data.prepared import PreparedSplit
from hope_jax.data.tasks.babilong import Babilong
from hope_jax.data.tasks.mqar import MQAR
from hope_jax.data.tasks.needle import Needle
from hope_jax.data.tasks.task import SymbolTask, TextTask

_TASKS: dict[type, Callable[[Any, int], SymbolTask]] = {
    MQARConfig: MQAR,
}

_TEXT_TASKS: dict[type, Callable[[Any, int, PreparedSplit], TextTask]] = {
    BabilongConfig: Babilong,
    NeedleConfig: Needle,
}


def make_text_task(config: TaskConfig, length: int, text: PreparedSplit) -> TextTask:
    """The task of this configuration, set in a text, with `length` tokens an example.

    Raises:
      ValueError: the length does not fit the task or the text, or a file is missing or wrong.

    >>> from hope_jax.data.prepared import find_split
    >>> make_text_task(NeedleConfig(), 512, find_split(None, None, "train")).tokenizer.name
    'byte'
    """
    return _TEXT_TASKS[type(config)](config, length, text)


def make_task(config: TaskConfig, length: int) -> SymbolTask:
    """The task of this configuration, over symbols, with texts of `length` tokens.

    Raises:
      ValueError: the length does not fit the task.

    >>> make_task(MQARConfig(), 64).symbols[:3]
    ('.', 'k0', 'k1')
    """
    return _TASKS[type(config)](config, length)
