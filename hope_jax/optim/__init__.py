"""Optimizers: the paper's rules as optax transformations, and the outer one by levels."""

from hope_jax.optim.deep_momentum import deep_momentum, scale_by_deep_momentum
from hope_jax.optim.delta_momentum import delta_momentum, scale_by_delta_momentum
from hope_jax.optim.dgd import check_inputs, dgd
from hope_jax.optim.feature_momentum import scale_by_feature_momentum
from hope_jax.optim.generalized_momentum import scale_by_generalized_momentum
from hope_jax.optim.layer_inputs import apply_with_inputs
from hope_jax.optim.learned_preconditioner import scale_by_learned_preconditioner
from hope_jax.optim.m3 import m3, scale_by_m3, scale_by_m3_literal
from hope_jax.optim.matrices import match_rms, two_dimensional
from hope_jax.optim.mixed import matrices_and_rest
from hope_jax.optim.orthogonalize import orthogonalize
from hope_jax.optim.outer import make
from hope_jax.optim.preconditioned_momentum import scale_by_preconditioned_momentum
from hope_jax.optim.schedules import learning_rate, start_at

__all__ = [
    "apply_with_inputs",
    "check_inputs",
    "deep_momentum",
    "delta_momentum",
    "dgd",
    "learning_rate",
    "m3",
    "make",
    "match_rms",
    "matrices_and_rest",
    "orthogonalize",
    "scale_by_deep_momentum",
    "scale_by_delta_momentum",
    "scale_by_feature_momentum",
    "scale_by_generalized_momentum",
    "scale_by_learned_preconditioner",
    "scale_by_m3",
    "scale_by_m3_literal",
    "scale_by_preconditioned_momentum",
    "start_at",
    "two_dimensional",
]
