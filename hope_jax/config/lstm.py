"""Configuration of the LSTM (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hope_jax.config.check import require
from hope_jax.config.mixer_checks import counts, optional_counts


@dataclasses.dataclass(frozen=True)
class LSTMConfig:
    """Long short-term memory with forget gates, and no peepholes."""

    type: ClassVar[str] = "lstm"

    heads: int = 1  # recurrent weights connect the units of a head alone; 1: all units
    hidden: int | None = None  # units of all heads; None: the model's width
    forget_bias: float = 1.0  # of forget gates at initialisation; the other biases are 0

    def __post_init__(self):
        counts(self, "heads")
        optional_counts(self, hidden="the model's width")

    def units(self, dim: int) -> int:
        """Units of all heads at a width."""
        return dim if self.hidden is None else self.hidden

    def validate(self, dim: int) -> None:
        """Check the fields that depend on the model width."""
        require(
            self.units(dim) % self.heads == 0,
            f"{self.units(dim)} units (mixer.hidden, or model.dim) are not a multiple of "
            f"mixer.heads {self.heads}",
        )
