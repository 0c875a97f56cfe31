"""Configuration of selective state spaces: Mamba, and Samba, which adds attention to it.

The defaults are those of the published models, as far as they do not depend on the width.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from hope_jax.config.check import require
from hope_jax.config.mixer_checks import (
    convolution,
    counts,
    optional_counts,
    remat,
    rotary,
    rotary_heads,
)


@dataclasses.dataclass(frozen=True)
class MambaConfig:
    """Mamba (Gu and Dao 2023): channels with a state whose decay the input chooses."""

    type: ClassVar[str] = "mamba"

    expand: float = 2.0  # channels over the width of the model
    state_size: int = 16  # numbers that a channel remembers
    conv: int = 4  # width of the convolution before the scan; 0 turns it off
    step_rank: int | None = None  # width that steps are projected through; None: dim / 16
    min_step: float = 1e-3  # steps at initialisation lie between these two
    max_step: float = 0.1
    chunk: int = 16  # tokens per parallel step; changes speed, not the result
    # What the backward pass stores: see SelfModifyingConfig.remat.
    remat: Literal["auto", "none", "chunk", "sqrt"] = "auto"

    def __post_init__(self):
        counts(self, "state_size", "chunk")
        convolution(self)
        optional_counts(self, step_rank="dim / 16")
        require(
            0 < self.min_step <= self.max_step,
            f"mixer.min_step {self.min_step} and mixer.max_step {self.max_step} must be "
            "positive and in this order",
        )
        remat(self)

    def channels(self, dim: int) -> int:
        """Channels of the scan."""
        return round(self.expand * dim)

    def rank(self, dim: int) -> int:
        """Width that steps are projected through."""
        return math.ceil(dim / 16) if self.step_rank is None else self.step_rank

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        channels = self.expand * dim
        require(
            channels >= 1 and channels == round(channels),
            f"model.dim {dim} times mixer.expand {self.expand:g} gives {channels:g} channels; "
            "choose numbers that make it whole",
        )


@dataclasses.dataclass(frozen=True)
class SambaConfig(MambaConfig):
    """Mamba, a feed-forward layer and attention over a window (Ren et al. 2024).

    With the feed-forward layer of the block one group of the published model, so `model.depth`
    counts groups. The inner feed-forward layer is as wide as that of the block, `model.cms`.
    """

    type: ClassVar[str] = "samba"
    branches: ClassVar[int] = 3  # additions to the residual stream

    heads: int = 4
    window: int = 2048  # tokens that a query sees, itself among them
    rope_theta: float = 10_000.0
    block: int = 128  # queries and keys scored at a time; bounds memory, not the result

    def __post_init__(self):
        super().__post_init__()
        counts(self, "heads", "window", "block")
        rotary(self)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        super().validate(dim)
        rotary_heads(self, dim)
