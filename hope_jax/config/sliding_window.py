"""Configuration of attention over a window of the last tokens."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hope_jax.config.mixer_checks import counts, rotary, rotary_heads


@dataclasses.dataclass(frozen=True)
class SlidingWindowConfig:
    """Causal softmax attention with rotary positions over the last `window` tokens."""

    type: ClassVar[str] = "sliding_window"

    heads: int = 4
    window: int = 256  # tokens that a query sees, itself among them
    rope_theta: float = 10_000.0
    block: int = 128  # queries and keys scored at a time; bounds memory, not the result

    def __post_init__(self):
        counts(self, "heads", "window", "block")
        rotary(self)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        rotary_heads(self, dim)
