"""Operations of a feed-forward layer, per token."""

from __future__ import annotations

from hope_jax.config import ModelConfig


def feed_forward(config: ModelConfig, hidden: int) -> float:
    products = 3 if config.cms.activation == "swiglu" else 2
    return 2 * products * config.dim * hidden
