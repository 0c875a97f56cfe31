"""The outer optimizer: the levels engine with periods counted in training steps."""

from hope_jax.optim.outer import make
from hope_jax.optim.schedules import learning_rate

__all__ = ["learning_rate", "make"]
