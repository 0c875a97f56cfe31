"""Configuration of mixers with a deep memory: Titans and deep linear attention.

Where the papers give no numbers, the defaults are those of the self-modifying mixer, so that
what differs between the models is what the papers say differs.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import choose
from hope_jax.config.mixer_checks import (
    convolution,
    counts,
    optional_counts,
    rates,
    remat,
    rotary,
    rotary_heads,
    shares,
    whole_heads,
)


@dataclasses.dataclass(frozen=True)
class DeepMemoryConfig:
    """A memory of several layers per head that is trained as it is read from."""

    heads: int = 4
    layers: int = 2  # of a memory; 1 is a matrix
    hidden: int | None = None  # width between a memory's layers; None: that of a head
    activation: Literal["gelu", "silu"] = "gelu"  # between a memory's layers
    residual: bool = False  # whether a memory adds its input to its output
    objective: Literal["l2", "dot"] = "l2"  # (M(k) - v)^2, or -<M(k), v>
    chunk: int = 64  # tokens whose gradients are taken at one state
    momentum: Literal["titans", "none"] = "titans"
    retention: Literal["learned", "none"] = "learned"  # none: nothing is forgotten
    # Where forgetting takes the weights. Zero is what the paper writes; but where all layers
    # are zero no layer has a gradient, and a memory that has forgotten is dead.
    decay_to: Literal["initial", "zero"] = "initial"
    hidden_norm: Literal["none", "l2"] = "none"  # unit length between a memory's layers
    # Unit length of values. The papers have it for queries and keys alone; but the longer
    # the values, the larger the weights that give them, and the smaller the rates at which
    # gradients at the chunk's start do not overshoot.
    value_norm: Literal["l2", "none"] = "l2"
    conv: int = 4  # width of the convolutions after q, k and v; 0 turns them off
    # rate = max_rate * sigmoid(.) * (1 - momentum), so that what a gradient does to the
    # weights in the end does not depend on the momentum. None: 2 / chunk, at most 1; with
    # more, a chunk of the same token throughout overshoots.
    max_rate: float | None = None
    initial_rate: float | None = None  # max_rate * sigmoid(.) at the start; None: half of it
    initial_retention: float = 0.99  # share of the weights that a token keeps
    initial_momentum: float = 0.5
    # What the backward pass stores: see SelfModifyingConfig.remat.
    remat: Literal["auto", "none", "chunk", "sqrt"] = "auto"

    def __post_init__(self):
        counts(self, "heads", "layers", "chunk")
        optional_counts(self, hidden="the size of a head")
        convolution(self)
        choose("mixer.activation", self.activation, "gelu", "silu")
        choose("mixer.objective", self.objective, "l2", "dot")
        choose("mixer.momentum", self.momentum, "titans", "none")
        choose("mixer.retention", self.retention, "learned", "none")
        choose("mixer.decay_to", self.decay_to, "initial", "zero")
        choose("mixer.hidden_norm", self.hidden_norm, "none", "l2")
        choose("mixer.value_norm", self.value_norm, "l2", "none")
        remat(self)
        shares(self, "initial_retention", "initial_momentum")
        rates(self)

    @property
    def rate_limit(self) -> float:
        """Upper limit of the rate without momentum: `max_rate`, or what the chunk allows."""
        return min(1.0, 2 / self.chunk) if self.max_rate is None else self.max_rate

    @property
    def start_rate(self) -> float:
        """Rate without momentum at initialisation: `initial_rate`, or half of the limit."""
        return 0.5 * self.rate_limit if self.initial_rate is None else self.initial_rate

    def sizes(self, dim: int) -> tuple[int, ...]:
        """Widths of a memory, from its input to its output."""
        size = dim // self.heads
        hidden = size if self.hidden is None else self.hidden
        return (size, *(hidden,) * (self.layers - 1), size)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        whole_heads(self, dim)


@dataclasses.dataclass(frozen=True)
class TitansConfig(DeepMemoryConfig):
    """The long-term memory of Titans alone, "LMM" (Behrouz et al. 2025)."""

    type: ClassVar[str] = "titans"

    gate: Literal["silu", "sigmoid", "none"] = "silu"  # of the output

    def __post_init__(self):
        super().__post_init__()
        choose("mixer.gate", self.gate, "silu", "sigmoid", "none")


@dataclasses.dataclass(frozen=True)
class TitansMACConfig(DeepMemoryConfig):
    """Memory as context of attention in segments (Behrouz et al. 2025, section 4.1).

    `chunk` is the length of a segment.
    """

    type: ClassVar[str] = "titans_mac"

    persistent: int = 4  # learned tokens that every query sees; at least 1
    # The non-linearity of what the memory reads, which the paper leaves open.
    memory_gate: Literal["silu", "sigmoid"] = "silu"
    rope_theta: float = 10_000.0  # rotary positions count from the start of the segment

    def __post_init__(self):
        super().__post_init__()
        counts(self, "persistent")
        rotary(self)
        choose("mixer.memory_gate", self.memory_gate, "silu", "sigmoid")

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        super().validate(dim)
        rotary_heads(self, dim)


@dataclasses.dataclass(frozen=True)
class TitansMAGConfig(DeepMemoryConfig):
    """Memory as a gate of attention over a window (Behrouz et al. 2025, section 4.2)."""

    type: ClassVar[str] = "titans_mag"

    window: int = 256  # tokens that a query sees, itself among them
    persistent: int = 4  # learned tokens that every query sees; at least 1
    # The non-linearity of what the memory reads, which the paper leaves open.
    memory_gate: Literal["silu", "sigmoid"] = "silu"
    rope_theta: float = 10_000.0
    block: int = 128  # queries and keys scored at a time; bounds memory, not the result

    def __post_init__(self):
        super().__post_init__()
        counts(self, "window", "persistent", "block")
        rotary(self)
        choose("mixer.memory_gate", self.memory_gate, "silu", "sigmoid")

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        super().validate(dim)
        rotary_heads(self, dim)


@dataclasses.dataclass(frozen=True)
class TitansMALConfig(TitansConfig):
    """Memory as a layer below attention over a window (Behrouz et al. 2025, section 4.3)."""

    type: ClassVar[str] = "titans_mal"

    window: int = 256  # tokens that a query sees, itself among them
    persistent: int = 4  # learned tokens that every query sees; at least 1
    inner_residual: bool = True  # whether attention sees the input beside what memory read
    rope_theta: float = 10_000.0
    block: int = 128  # queries and keys scored at a time; bounds memory, not the result

    def __post_init__(self):
        super().__post_init__()
        counts(self, "window", "persistent", "block")
        rotary(self)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        super().validate(dim)
        rotary_heads(self, dim)


@dataclasses.dataclass(frozen=True)
class DLAConfig(TitansConfig):
    """Deep linear attention: a Hebbian write and no momentum (Behrouz et al. 2025, Atlas).

    The more two layers have learnt under this objective, the faster they learn, without
    limit; hidden layers of unit length take that away.
    """

    type: ClassVar[str] = "dla"

    objective: Literal["l2", "dot"] = "dot"
    momentum: Literal["titans", "none"] = "none"
    hidden_norm: Literal["none", "l2"] = "l2"
