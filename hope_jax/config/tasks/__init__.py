"""Configuration of the tasks: data that are made by rule, with answers to be judged.

A task is chosen by `data.task`; its `type` is its name in configuration files, on the command
line and in the registry `hope_jax.data.tasks.registry`.
"""

from __future__ import annotations

from typing import Union

from hope_jax.config.tasks.babilong import BabilongConfig
from hope_jax.config.tasks.base import Answers, BaseTask, answers_of
from hope_jax.config.tasks.copying import CompressionConfig, CopyingConfig, InductionConfig
from hope_jax.config.tasks.formal import FormalConfig
from hope_jax.config.tasks.group import GroupConfig
from hope_jax.config.tasks.memorization import MemorizationConfig
from hope_jax.config.tasks.mqar import MQARConfig
from hope_jax.config.tasks.needle import NeedleConfig
from hope_jax.config.tasks.recall import RecallConfig

_KINDS = (
    BabilongConfig,
    CompressionConfig,
    CopyingConfig,
    FormalConfig,
    GroupConfig,
    InductionConfig,
    MemorizationConfig,
    MQARConfig,
    NeedleConfig,
    RecallConfig,
)

TaskConfig = Union[_KINDS]  # noqa: UP007 - of a tuple

TASK_CONFIGS: dict[str, type] = {kind.type: kind for kind in _KINDS}

__all__ = [
    "TASK_CONFIGS",
    "Answers",
    "BabilongConfig",
    "BaseTask",
    "CompressionConfig",
    "CopyingConfig",
    "FormalConfig",
    "GroupConfig",
    "InductionConfig",
    "MQARConfig",
    "MemorizationConfig",
    "NeedleConfig",
    "RecallConfig",
    "TaskConfig",
    "answers_of",
]
