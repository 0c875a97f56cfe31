"""The outer optimizer: the levels engine with periods counted in training steps."""

from hope_jax.optim.dgd import dgd
from hope_jax.optim.layer_inputs import apply_with_inputs
from hope_jax.optim.outer import make
from hope_jax.optim.schedules import learning_rate

__all__ = ["apply_with_inputs", "dgd", "learning_rate", "make"]
