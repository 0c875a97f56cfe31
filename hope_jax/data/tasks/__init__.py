"""Tasks: texts made by rule, some of whose tokens are answers."""

from hope_jax.data.tasks.registry import make_task
from hope_jax.data.tasks.task import Example, Task

__all__ = ["Example", "Task", "make_task"]
