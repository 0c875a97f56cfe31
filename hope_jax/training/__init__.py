"""Training: the step, the loop, evaluation and what is told about them."""

from hope_jax.training.finite import NonFinite
from hope_jax.training.loop import Outcome, train

__all__ = ["NonFinite", "Outcome", "train"]
