"""Configuration of the sequence mixers, one frozen dataclass per mixer.

A mixer's `type` is its name in configuration files, on the command line and in the
registry `hope_jax.layers.registry`.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import ClassVar, Literal

from hope_jax.config.check import choose, require
from hope_jax.config.linear_mixers import (
    CombaConfig,
    DeltaNetConfig,
    GatedDeltaNetConfig,
    LinearAttentionConfig,
    RetNetConfig,
)
from hope_jax.config.lstm import LSTMConfig
from hope_jax.config.mamba import MambaConfig, SambaConfig
from hope_jax.config.memora import MemoraConfig
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
from hope_jax.config.rope import RopeScalingConfig
from hope_jax.config.rwkv7 import RWKV7Config
from hope_jax.config.sliding_window import SlidingWindowConfig
from hope_jax.config.srwm import SRWMConfig
from hope_jax.config.titans import (
    DLAConfig,
    TitansConfig,
    TitansMACConfig,
    TitansMAGConfig,
    TitansMALConfig,
)
from hope_jax.config.ttt import TTTLinearConfig, TTTMLPConfig


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """Causal softmax attention with rotary positions (HOPE-Attention, Transformer++).

    With `kv_heads` below `heads` each head of keys and values serves a group of queries
    (Ainslie et al. 2023, arXiv:2305.13245), as in pretrained models of the Llama form.
    """

    type: ClassVar[str] = "attention"

    heads: int = 4
    kv_heads: int | None = None  # heads of keys and values; None: as many as of queries
    bias: bool = False  # of queries, keys and values (Qwen-2)
    rope_theta: float = 10_000.0
    rope_scaling: RopeScalingConfig = RopeScalingConfig()
    block: int = 128  # queries and keys scored at a time; bounds memory, not the result

    def __post_init__(self):
        counts(self, "heads", "block")
        optional_counts(self, kv_heads="as many as of queries")
        require(
            self.heads % self.groups == 0,
            f"mixer.heads {self.heads} is not a multiple of mixer.kv_heads {self.kv_heads}; "
            "each head of keys and values serves as many queries",
        )
        rotary(self)

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        rotary_heads(self, dim)


MEMORIES = ("memory", "k", "v", "q", "eta", "alpha")


@dataclasses.dataclass(frozen=True)
class SelfModifyingConfig:
    """Self-modifying Titans (paper sections 8.1-8.2, Eqs. 83-93).

    Every ablation of the paper's Table 6 is one field here: `rule`, `momentum`,
    `retention` and the members of `adaptive`; the questions that the paper leaves open
    are fields too, and the first value named is the default.
    """

    type: ClassVar[str] = "self_modifying"

    heads: int = 4
    # Which projections are memories that rewrite themselves in context; the others are
    # ordinary linear layers. The main memory always adapts.
    adaptive: tuple[str, ...] = ("k", "v", "eta", "alpha")
    memory: Literal["mlp", "linear"] = "mlp"  # Eq. 89 or the matrix of Eqs. 92-93
    # Size of what the main memory says over that of a key: as many memories side by side,
    # written with the same keys and values.
    value_expansion: int = 1
    hidden: int | None = None  # hidden width per head of k, v, q, memory; None: head size
    rate_hidden: int = 16  # hidden width per head of the eta and alpha memories
    chunk: int = 64  # tokens whose writes see one frozen state (generators)
    memory_chunk: int | None = None  # the same for the main memory; None: `chunk`
    objective: Literal["l2", "dot"] = "l2"  # Eq. 93 or the sign-corrected Eq. 92
    grad_factor: float = 1.0  # 2.0 keeps the factor of the squared norm's gradient
    rule: Literal["dgd", "gd"] = "dgd"  # Eq. 88 with or without the -eta k k^T term
    scope: Literal["per_layer", "input_only"] = "per_layer"  # which weights DGD decays
    momentum: Literal["none", "titans"] = "none"
    retention: Literal["learned", "none"] = "learned"  # none: alpha = 1
    # Where alpha < 1 takes the weights: what training has learned, or, as Eq. 88 has it, zero.
    decay_to: Literal["initial", "zero"] = "initial"
    read: Literal["running", "chunk_start"] = "running"  # Eq. 94 or Eq. 90
    activation: Literal["gelu", "silu"] = "gelu"  # sigma of Eq. 89
    targets: Literal["generated", "shared"] = "generated"  # v_hat = M(v), or v itself
    # Normalise the hidden layer of a memory: to unit length, "centred" around zero first.
    hidden_norm: Literal["l2", "centred", "none"] = "l2"
    value_norm: Literal["l2", "rms", "none"] = "l2"  # normalise v before v_hat = M(v)
    input_norm: Literal["l2", "rms", "none"] = "l2"  # normalise what the generators read
    conv: int = 4  # width of the causal depthwise convolution; 0 turns it off
    conv_placement: Literal["per_role", "shared"] = "per_role"
    # eta = max_rate * sigmoid(.), times 1 - mu with momentum. None: 4 / chunk, at most 1. The
    # writes of a chunk do not see each other's errors; where they sum to more than a few units
    # they overshoot, and memories that generate their own keys and rates turn that into chaos.
    max_rate: float | None = None
    initial_rate: float | None = None  # eta at initialisation; None: 0.3 max_rate
    initial_retention: float = 0.99  # alpha at initialisation
    initial_momentum: float = 0.5  # mu at initialisation
    gate: bool = True  # output gate SiLU(W_g x)
    bptt_chunks: int | None = None  # outer gradients cross at most this many chunks
    # Backward pass: store every chunk's intermediates, recompute them, or recompute all
    # but every sqrt(N)-th state too; auto is "chunk" until a sequence has many chunks.
    remat: Literal["auto", "none", "chunk", "sqrt"] = "auto"

    def __post_init__(self):
        counts(self, "heads", "value_expansion", "rate_hidden", "chunk")
        optional_counts(self, hidden="the size of a head", bptt_chunks="no limit")
        convolution(self)
        unknown = [name for name in self.adaptive if name not in MEMORIES[1:]]
        require(
            not unknown,
            f"mixer.adaptive names {unknown}; the generators are {list(MEMORIES[1:])}",
        )
        choose("mixer.memory", self.memory, "mlp", "linear")
        choose("mixer.objective", self.objective, "l2", "dot")
        choose("mixer.rule", self.rule, "dgd", "gd")
        choose("mixer.scope", self.scope, "per_layer", "input_only")
        choose("mixer.momentum", self.momentum, "none", "titans")
        choose("mixer.retention", self.retention, "learned", "none")
        choose("mixer.decay_to", self.decay_to, "initial", "zero")
        choose("mixer.read", self.read, "running", "chunk_start")
        choose("mixer.activation", self.activation, "gelu", "silu")
        choose("mixer.targets", self.targets, "generated", "shared")
        remat(self)
        choose("mixer.hidden_norm", self.hidden_norm, "l2", "centred", "none")
        choose("mixer.value_norm", self.value_norm, "l2", "rms", "none")
        choose("mixer.input_norm", self.input_norm, "l2", "rms", "none")
        choose("mixer.conv_placement", self.conv_placement, "per_role", "shared")
        shares(self, "initial_retention", "initial_momentum")
        rates(self)
        chunks = (self.chunk, self.memory_chunk or self.chunk)
        require(
            max(chunks) % min(chunks) == 0,
            f"mixer.chunk {chunks[0]} and mixer.memory_chunk {chunks[1]}: "
            "one must divide the other",
        )
        adapting = set(self.adaptive) - ({"alpha"} if self.retention == "none" else set())
        rates_alone = bool(adapting) and not adapting & {"k", "v", "q"}
        require(
            self.memory == "linear" or chunks[0] == chunks[1] or not rates_alone,
            f"mixer.adaptive {self.adaptive} with mixer.memory_chunk {chunks[1]} beside "
            f"mixer.chunk {chunks[0]}: rates that adapt without k, v or q need one chunk for "
            "all; leave memory_chunk at None, or add one of k, v, q",
        )

    @property
    def rate_limit(self) -> float:
        """Upper limit of eta: `max_rate`, or what the chunks allow."""
        if self.max_rate is not None:
            return self.max_rate
        limit = min(1.0, 4 / max(self.chunk, self.memory_chunk or 1))
        return limit / max(1.0, self.grad_factor)

    @property
    def decays_to_initial(self) -> bool:
        """Whether weights move towards their initial values; without retention none move."""
        return self.decay_to == "initial" and self.retention == "learned"

    @property
    def start_rate(self) -> float:
        """Eta at initialisation: `initial_rate`, or 0.3 of the limit."""
        return 0.3 * self.rate_limit if self.initial_rate is None else self.initial_rate

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        whole_heads(self, dim)


MixerConfig = (
    AttentionConfig
    | SelfModifyingConfig
    | LinearAttentionConfig
    | LSTMConfig
    | RetNetConfig
    | DeltaNetConfig
    | GatedDeltaNetConfig
    | CombaConfig
    | MambaConfig
    | MemoraConfig
    | SambaConfig
    | RWKV7Config
    | SlidingWindowConfig
    | TitansConfig
    | TitansMACConfig
    | TitansMAGConfig
    | TitansMALConfig
    | DLAConfig
    | SRWMConfig
    | TTTLinearConfig
    | TTTMLPConfig
)

MIXER_CONFIGS: dict[str, type] = {c.type: c for c in typing.get_args(MixerConfig)}
