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
        for field in ("heads", "window", "block"):
            value = getattr(self, field)
            require(value >= 1, f"mixer.{field} is {value}; use at least 1")
        require(
            self.rope_theta > 0, f"mixer.rope_theta is {self.rope_theta}; use a positive base"
        )

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        require(
            dim % self.heads == 0 and (dim // self.heads) % 2 == 0,
            f"model.dim {dim} over mixer.heads {self.heads} must give an even whole head size; "
            f"choose heads that divide {dim // 2}",
        )
