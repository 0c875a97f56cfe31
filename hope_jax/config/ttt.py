"""Configuration of test-time-training layers: TTT-Linear and TTT-MLP.

The defaults are those of the published code (Sun et al. 2024, arXiv:2407.04620).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import choose
from hope_jax.config.mixer_checks import counts, optional_counts, positive, rotary_heads


@dataclasses.dataclass(frozen=True)
class TTTLinearConfig:
    """Test-time training of an affine inner model."""

    type: ClassVar[str] = "ttt_linear"

    heads: int = 4
    chunk: int = 16  # tokens whose gradients are taken at one state (the mini-batch)
    base_rate: float = 1.0  # inner learning rate, of which a gate takes a part
    # mamba: q and k are convolutions of one projection, and the output is gated;
    # transformer: plain projections.
    backbone: Literal["mamba", "transformer"] = "mamba"
    conv: int = 4  # width of the causal depthwise convolutions of the mamba backbone
    rope_theta: float = 10_000.0  # rotary positions count from the start of the chunk
    remat_chunks: int = 4  # chunks that the backward pass recomputes together

    def __post_init__(self):
        _check(self)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        rotary_heads(self, dim)


@dataclasses.dataclass(frozen=True)
class TTTMLPConfig:
    """Test-time training of an inner model of two layers; fields as in `TTTLinearConfig`."""

    type: ClassVar[str] = "ttt_mlp"

    heads: int = 4
    hidden: int | None = None  # hidden width of an inner model; None: 4 times the head size
    chunk: int = 16
    base_rate: float = 0.1
    backbone: Literal["mamba", "transformer"] = "mamba"
    conv: int = 4
    rope_theta: float = 10_000.0
    remat_chunks: int = 4

    def __post_init__(self):
        optional_counts(self, hidden="4 times the head size")
        _check(self)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        rotary_heads(self, dim)


def _check(config: TTTLinearConfig | TTTMLPConfig) -> None:
    counts(config, "heads", "chunk", "conv", "remat_chunks")
    positive(config, "base_rate", "rope_theta")
    choose("mixer.backbone", config.backbone, "mamba", "transformer")
