"""The language model, its parameters and its loss."""

from hope_jax.models.init import (
    ParamCounts,
    ParamShape,
    abstract_params,
    abstract_state,
    count_params,
    init_params,
    param_shapes,
)
from hope_jax.models.language_model import LanguageModel, Output
from hope_jax.models.losses import next_token_loss, next_token_losses

__all__ = [
    "LanguageModel",
    "Output",
    "ParamCounts",
    "ParamShape",
    "abstract_params",
    "abstract_state",
    "count_params",
    "init_params",
    "next_token_loss",
    "next_token_losses",
    "param_shapes",
]
