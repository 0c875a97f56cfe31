"""From the configuration of a task to the task: one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hope_jax.config import tasks as config
from hope_jax.data.prepared import PreparedSplit
from hope_jax.data.tasks.babilong import Babilong
from hope_jax.data.tasks.copying import Compression, Copying, Induction
from hope_jax.data.tasks.formal import Formal
from hope_jax.data.tasks.group import Group
from hope_jax.data.tasks.memorization import Memorization
from hope_jax.data.tasks.mqar import MQAR
from hope_jax.data.tasks.needle import Needle
from hope_jax.data.tasks.recall import Recall
from hope_jax.data.tasks.task import SymbolTask, TextTask

_TASKS: dict[type, Callable[[Any, int], SymbolTask]] = {
    config.CompressionConfig: Compression,
    config.CopyingConfig: Copying,
    config.FormalConfig: Formal,
    config.GroupConfig: Group,
    config.InductionConfig: Induction,
    config.MemorizationConfig: Memorization,
    config.MQARConfig: MQAR,
    config.RecallConfig: Recall,
}

_TEXT_TASKS: dict[type, Callable[[Any, int, PreparedSplit], TextTask]] = {
    config.BabilongConfig: Babilong,
    config.NeedleConfig: Needle,
}


def make_text_task(task: config.TaskConfig, length: int, text: PreparedSplit) -> TextTask:
    """The task of this configuration, set in a text, with `length` tokens an example.

    Raises:
      ValueError: the length does not fit the task or the text, or a file is missing or wrong.

    >>> from hope_jax.data.prepared import find_split
    >>> text = find_split(None, None, "train")
    >>> make_text_task(config.NeedleConfig(), 512, text).tokenizer.name
    'byte'
    """
    return _TEXT_TASKS[type(task)](task, length, text)


def make_task(task: config.TaskConfig, length: int) -> SymbolTask:
    """The task of this configuration, over symbols, with texts of `length` tokens.

    Raises:
      ValueError: the length does not fit the task.

    >>> make_task(config.MQARConfig(), 64).symbols[:3]
    ('.', 'k0', 'k1')
    """
    return _TASKS[type(task)](task, length)
