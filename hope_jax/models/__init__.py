"""The language model, its parameters and its loss."""

from hope_jax.models.flops import Flops, flops_per_token
from hope_jax.models.init import (
    ParamCounts,
    ParamShape,
    abstract_params,
    abstract_state,
    count_params,
    init_params,
    misfit,
    param_shapes,
)
from hope_jax.models.language_model import LanguageModel, Output
from hope_jax.models.losses import (
    legal_set_losses,
    legal_set_right,
    next_token_loss,
    next_token_losses,
)
from hope_jax.models.match import match_budget, match_params

__all__ = [
    "Flops",
    "LanguageModel",
    "Output",
    "ParamCounts",
    "ParamShape",
    "abstract_params",
    "abstract_state",
    "count_params",
    "flops_per_token",
    "init_params",
    "misfit",
    "legal_set_losses",
    "legal_set_right",
    "match_budget",
    "match_params",
    "next_token_loss",
    "next_token_losses",
    "param_shapes",
]
