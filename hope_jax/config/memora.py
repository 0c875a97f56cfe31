"""Configuration of Memora: an inner model whose weights are distributions.

Behrouz et al. 2025, arXiv:2504.13173, whose text has the equations and few of the numbers.
Chunk, hidden width, convolutions and the rank of the rates are the paper's; what it leaves open
is a field here, and said to be so.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import choose, require
from hope_jax.config.mixer_checks import (
    convolution,
    counts,
    optional_counts,
    positive,
    rates,
    remat,
    shares,
    whole_heads,
)


@dataclasses.dataclass(frozen=True)
class MemoraConfig:
    """An inner model of two layers with the L2 objective and retention by KL divergence."""

    type: ClassVar[str] = "memora"

    heads: int = 4
    hidden: int | None = None  # hidden width of an inner model; None: 4 times the head size
    chunk: int = 16  # tokens whose gradients are taken at one state; 1: the exact recurrence
    # Which weights sum to c; open. All inputs of one output, all outputs of one input, or the
    # matrix.
    simplex: Literal["inputs", "outputs", "matrix"] = "inputs"
    # c; open. None: the number of weights that sum to it, so that their mean is 1. With the c =
    # 1 of the paper's short form outputs are lost in the eps of the LayerNorm.
    mass: float | None = None
    spread: float = 1.0  # deviation of the logarithms of initial weights; open
    memory_eps: float = 1e-2  # of the LayerNorm in the inner model; see `ops.memora.Memory`
    # What a token reads behind the first of its chunk: weights that follow the recurrence
    # without softmax and logarithm, or those after the first token.
    read: Literal["linear", "lag"] = "linear"
    rate_rank: int | None = 32  # rates per channel through so many; None: one rate per head
    # eta = max_rate * sigmoid(.); open. None: 4 / chunk, at most 1, for the reason that
    # SelfModifyingConfig.max_rate gives.
    max_rate: float | None = None
    initial_rate: float | None = None  # eta at initialisation; None: 0.3 max_rate
    initial_retention: float = 0.99  # alpha at initialisation; open
    conv: int = 4  # width of the convolutions after q, k and v; 0 turns them off
    activation: Literal["silu", "none"] = "silu"  # after the convolutions; open
    gate: Literal["silu", "sigmoid", "none"] = "silu"  # of the output
    # What the backward pass stores: see SelfModifyingConfig.remat. States are large here.
    remat: Literal["auto", "none", "chunk", "sqrt"] = "sqrt"

    def __post_init__(self):
        counts(self, "heads", "chunk")
        optional_counts(self, hidden="4 times the head size", rate_rank="per head")
        convolution(self)
        require(
            self.mass is None or self.mass > 0,
            f"mixer.mass is {self.mass}; use None (a mean weight of 1) or a positive number",
        )
        positive(self, "spread", "memory_eps")
        choose("mixer.simplex", self.simplex, "inputs", "outputs", "matrix")
        choose("mixer.read", self.read, "linear", "lag")
        choose("mixer.activation", self.activation, "silu", "none")
        choose("mixer.gate", self.gate, "silu", "sigmoid", "none")
        remat(self)
        shares(self, "initial_retention")
        rates(self)

    @property
    def rate_limit(self) -> float:
        """Upper limit of eta: `max_rate`, or what the chunk allows."""
        return min(1.0, 4 / self.chunk) if self.max_rate is None else self.max_rate

    @property
    def start_rate(self) -> float:
        """Eta at initialisation: `initial_rate`, or 0.3 of the limit."""
        return 0.3 * self.rate_limit if self.initial_rate is None else self.initial_rate

    def hidden_size(self, dim: int) -> int:
        """Hidden width of an inner model."""
        return 4 * (dim // self.heads) if self.hidden is None else self.hidden

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        whole_heads(self, dim)
