"""Figures of a finished model on texts and benchmarks of the user's own files."""

from hope_jax.evaluation.measurement import Measurement, Work
from hope_jax.evaluation.registry import TASKS, average, chosen, register
from hope_jax.evaluation.rows import Row, Score, pair_row, text_row
from hope_jax.evaluation.scorer import Scorer
from hope_jax.evaluation.task import Progress, Source, Task

__all__ = [
    "TASKS",
    "Measurement",
    "Progress",
    "Row",
    "Score",
    "Scorer",
    "Source",
    "Task",
    "Work",
    "average",
    "chosen",
    "pair_row",
    "register",
    "text_row",
]
