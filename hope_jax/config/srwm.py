"""Configuration of the self-referential weight matrix (Irie et al. 2022, arXiv:2202.05780)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hope_jax.config.check import choose
from hope_jax.config.mixer_checks import counts, positive, remat, whole_heads


@dataclasses.dataclass(frozen=True)
class SRWMConfig:
    """A weight matrix that modifies itself, token after token."""

    type: ClassVar[str] = "srwm"

    heads: int = 4
    # What the matrix is applied to: the input itself, as in the authors' code for sequences,
    # or its softmax within a head, as the paper's equation has it.
    input_features: Literal["none", "softmax"] = "none"
    # Initial deviation of the rows that make queries, over that of the others; 0.01 in the
    # authors' code for formal languages. 1 / root of the head's size is the others'.
    query_scale: float = 1.0
    # Mean of the initial weights that make beta: -1 in the authors' code for images and
    # formal languages, 0 in that for games. A bias where input_features is softmax.
    beta_mean: float = 0.0
    # Tokens whose matrices the backward pass makes again together; changes memory and speed,
    # not the result.
    chunk: int = 16
    # What the backward pass stores: see SelfModifyingConfig.remat.
    remat: Literal["auto", "none", "chunk", "sqrt"] = "auto"

    def __post_init__(self):
        counts(self, "heads", "chunk")
        choose("mixer.input_features", self.input_features, "none", "softmax")
        positive(self, "query_scale")
        remat(self)

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        whole_heads(self, dim)
