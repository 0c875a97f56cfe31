"""Configuration of mixers with a matrix memory: linear attention and the delta rules.

The defaults are those of the published models, as far as they do not depend on the width.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import choose, require
from hope_jax.config.mixer_checks import convolution, counts, remat, rotary

Remat = Literal["auto", "none", "chunk", "sqrt"]


@dataclasses.dataclass(frozen=True)
class LinearAttentionConfig:
    """Linear attention, a sum of outer products (Katharopoulos et al. 2020; Eq. 15)."""

    type: ClassVar[str] = "linear_attention"

    heads: int = 4
    feature_map: Literal["elu", "relu", "none"] = "elu"  # phi; elu: elu(x) + 1
    # A read is divided by the sum of phi(k)^T phi(q), or normalised as it is.
    normaliser: Literal["sum", "rms"] = "sum"
    chunk: int = 64  # tokens per parallel step; changes speed, not the result
    # What the backward pass stores: see SelfModifyingConfig.remat.
    remat: Remat = "auto"

    def __post_init__(self):
        counts(self, "heads", "chunk")
        remat(self)
        choose("mixer.feature_map", self.feature_map, "elu", "relu", "none")
        choose("mixer.normaliser", self.normaliser, "sum", "rms")
        require(
            self.feature_map == "elu" or self.normaliser == "rms",
            f"mixer.feature_map {self.feature_map!r} is not positive, so the sum that "
            "mixer.normaliser 'sum' divides by may be zero; use feature_map 'elu' or "
            "normaliser 'rms'",
        )

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        _whole(dim, self.heads, 1.0)


@dataclasses.dataclass(frozen=True)
class RetNetConfig:
    """Retention: linear attention with rotary positions and a fixed decay per head
    (Sun et al. 2023)."""

    type: ClassVar[str] = "retnet"

    heads: int = 4
    value_expansion: float = 2.0  # size of a head's value over that of its key
    rope_theta: float = 10_000.0
    gate: Literal["silu", "sigmoid", "none"] = "silu"  # of the output
    chunk: int = 64  # tokens per parallel step; changes speed, not the result
    remat: Remat = "auto"

    def __post_init__(self):
        counts(self, "heads", "chunk")
        remat(self)
        choose("mixer.gate", self.gate, "silu", "sigmoid", "none")
        rotary(self)

    def sizes(self, dim: int) -> tuple[int, int]:
        """Sizes of a head's key and value."""
        key = dim // self.heads
        return key, round(self.value_expansion * key)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        _whole(dim, self.heads, 1.0)
        _whole(dim, self.heads, self.value_expansion)
        require(
            dim // self.heads % 2 == 0,
            f"model.dim {dim} over mixer.heads {self.heads} must be even, for rotary "
            f"positions; choose heads that divide {dim // 2}",
        )


@dataclasses.dataclass(frozen=True)
class DeltaNetConfig:
    """A matrix memory written by the delta rule (Schlag et al. 2021; Yang et al. 2024)."""

    type: ClassVar[str] = "delta_net"

    heads: int = 4
    key_expansion: float = 1.0  # width of all heads' keys over that of the model
    value_expansion: float = 1.0  # size of a head's value over that of its key
    conv: int = 4  # width of the convolutions after q, k and v; 0 turns them off
    retention: Literal["none", "learned"] = "none"  # none: alpha = 1
    # What a write removes of what its key reads: all of it (times alpha and beta), or a
    # learned fraction per head (times beta), with the output corrected as in Comba.
    feedback: Literal["full", "scaled"] = "full"
    initial_correction: float = 1.0  # with "scaled": D of q - D b k at initialisation
    gate: Literal["silu", "sigmoid", "none"] = "none"  # of the output
    chunk: int = 64  # tokens per parallel step; changes speed, not the result
    remat: Remat = "auto"

    def __post_init__(self):
        counts(self, "heads", "chunk")
        remat(self)
        convolution(self)
        choose("mixer.retention", self.retention, "none", "learned")
        choose("mixer.feedback", self.feedback, "full", "scaled")
        choose("mixer.gate", self.gate, "silu", "sigmoid", "none")

    def sizes(self, dim: int) -> tuple[int, int]:
        """Sizes of a head's key and value."""
        key = self.key_expansion * dim / self.heads
        return round(key), round(self.value_expansion * key)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        _whole(dim, self.heads, self.key_expansion)
        _whole(dim, self.heads, self.key_expansion * self.value_expansion)


@dataclasses.dataclass(frozen=True)
class GatedDeltaNetConfig(DeltaNetConfig):
    """The delta rule with data-dependent retention (Yang et al. 2025)."""

    type: ClassVar[str] = "gated_delta_net"

    key_expansion: float = 0.75
    value_expansion: float = 2.0
    retention: Literal["none", "learned"] = "learned"
    gate: Literal["silu", "sigmoid", "none"] = "silu"


@dataclasses.dataclass(frozen=True)
class CombaConfig(GatedDeltaNetConfig):
    """Gated DeltaNet with scaled feedback and a corrected output (Hu et al. 2025).

    The authors start small models at an `initial_correction` of 0.02.
    """

    type: ClassVar[str] = "comba"

    feedback: Literal["full", "scaled"] = "scaled"
    gate: Literal["silu", "sigmoid", "none"] = "sigmoid"


def _whole(dim: int, heads: int, expansion: float) -> None:
    size = expansion * dim / heads
    require(
        size >= 1 and size == round(size),
        f"model.dim {dim} times {expansion:g} over mixer.heads {heads} gives heads of size "
        f"{size:g}; choose numbers that make it whole",
    )
