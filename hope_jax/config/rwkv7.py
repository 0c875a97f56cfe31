"""Configuration of RWKV-7 (Peng et al. 2025, arXiv:2503.14456)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import require
from hope_jax.config.mixer_checks import counts, optional_counts, remat, whole_heads


@dataclasses.dataclass(frozen=True)
class RWKV7Config:
    """The time mixing of RWKV-7, a delta rule with decays and rates per channel.

    The published models have heads of size 64.
    """

    type: ClassVar[str] = "rwkv7"

    heads: int = 4
    # Ranks of the low-rank layers that make decays, in-context rates and the output gate.
    # None: the authors' suggestion, 2.5 (the gate: 5) roots of the width, in steps of 32.
    decay_rank: int | None = None
    rate_rank: int | None = None
    gate_rank: int | None = None
    # Tokens per parallel step; changes speed, not the result. In more than 128 the decays of
    # a chunk multiply to what float32 does not hold.
    chunk: int = 32
    # What the backward pass stores: see SelfModifyingConfig.remat.
    remat: Literal["auto", "none", "chunk", "sqrt"] = "auto"

    def __post_init__(self):
        counts(self, "heads", "chunk")
        require(self.chunk <= 128, f"mixer.chunk is {self.chunk}; use at most 128")
        by_width = dict.fromkeys(("decay_rank", "rate_rank", "gate_rank"), "by the width")
        optional_counts(self, **by_width)
        remat(self)

    def ranks(self, dim: int) -> dict[str, int]:
        """Ranks of the low-rank layers `decay`, `rate` and `gate` at a width.

        >>> RWKV7Config(gate_rank=16).ranks(768)
        {'decay': 64, 'rate': 64, 'gate': 16}
        """
        given = {"decay": self.decay_rank, "rate": self.rate_rank, "gate": self.gate_rank}
        roots = {"decay": 2.5, "rate": 2.5, "gate": 5.0}
        suggested = lambda name: max(32, 32 * round(roots[name] * dim**0.5 / 32))
        return {name: rank or suggested(name) for name, rank in given.items()}

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        whole_heads(self, dim)
