"""Levels: parameters that share an update frequency, each with its own optimizer."""

from hope_jax.nested.level import Level
from hope_jax.nested.levels import Levels
from hope_jax.nested.paths import Selector
from hope_jax.nested.state import LevelInfo, LevelsState, LevelState

__all__ = ["Level", "LevelInfo", "LevelState", "Levels", "LevelsState", "Selector"]
