"""Configuration of attention over a window of the last tokens."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hope_jax.config.check import require


@dataclasses.dataclass(frozen=True)
class SlidingWindowConfig:
    """Causal softmax attention with rotary positions over the last `window` tokens."""

    type: ClassVar[str] = "sliding_window"

    heads: int = 4
    window: int = 256  # tokens that a query sees, itself among them
    rope_theta: float = 10_000.0
    block: int = 128  # queries and keys scored at a time; bounds memory, not the result

    def __post_init__(self):
        check_window(self)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        check_heads(self, dim)


def check_window(config) -> None:
    """Check what attention over a window reads of a configuration, but for the width."""
    for field in ("heads", "window", "block"):
        value = getattr(config, field)
        require(value >= 1, f"mixer.{field} is {value}; use at least 1")
    theta = config.rope_theta
    require(theta > 0, f"mixer.rope_theta is {theta}; use a positive base")


def check_heads(config, dim: int) -> None:
    """Check that heads split the model's width into rotary pairs."""
    require(
        dim % config.heads == 0 and (dim // config.heads) % 2 == 0,
        f"model.dim {dim} over mixer.heads {config.heads} must give an even whole head size; "
        f"choose heads that divide {dim // 2}",
    )
