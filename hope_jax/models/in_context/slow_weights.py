"""Slow weights that a model has for learning within a text, beside those of its blocks."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from hope_jax.config import ModelConfig
from hope_jax.layers.fast_weights import InContext

NAME = "in_context"


def with_slow_weights(config: ModelConfig, params: Any) -> Any:
    """Parameters with those that `config` needs for learning; new ones at initial values.

    A rate that was not learned is `lr`.
    """
    params = dict(params)
    trained = params.pop(NAME, {})
    if not config.cms.in_context.on:
        return params
    variables = InContext(config).init(jax.random.key(0))
    needed = nn.unbox(variables.get("params", {}))
    fits = lambda name, new: name in trained and trained[name].shape == new.shape
    made = {name: trained[name] if fits(name, new) else new for name, new in needed.items()}
    return {**params, NAME: made} if made else params
