"""Held-out loss, by position in the window, with and without memory writes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hope_jax.data import Dataset
from hope_jax.models import LanguageModel
from hope_jax.training.held_out import HeldOutReader, apart
from hope_jax.training.objective import EVENTS, token_losses


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Loss on held-out text.

    Attributes:
      loss: nats per token.
      bits_per_byte: of the text that the tokens stand for.
      loss_by_position: mean loss of the n-th token of a window.
      tokens: tokens that were predicted.
      write_events: memory updates that happened; 0 with writes off or without memories.
    """

    loss: float
    bits_per_byte: float
    loss_by_position: tuple[float, ...]
    tokens: int
    write_events: int

    @property
    def perplexity(self) -> float:
        """exp(loss), per token."""
        return math.exp(min(self.loss, 700.0))

    def line(self) -> str:
        """The figures in one line."""
        return (
            f"held-out loss {self.loss:.4f}  perplexity {self.perplexity:.3f}  bits/byte "
            f"{self.bits_per_byte:.4f}  memory updates {self.write_events:,}"
        )

    def logged(self) -> dict[str, float]:
        """What the log of a run holds of it."""
        return {
            "eval/loss": self.loss,
            "eval/perplexity": self.perplexity,
            "eval/bits_per_byte": self.bits_per_byte,
            "eval/write_events": self.write_events,
        }


class Evaluator:
    """Evaluates parameters on held-out batches; compiled once for each kind of reading.

    Args:
      model: the language model.
      mesh: that of the parameters; one device by default.
    """

    def __init__(self, model: LanguageModel, mesh: Mesh | None = None):
        self._read = HeldOutReader(_read, model, mesh)

    def __call__(
        self, params: Any, held_out: Dataset, batches: int, *, writes: bool = True
    ) -> Evaluation:
        """Loss over the first `batches` batches of held-out data, or all there are."""
        return _figures(self._read(params, held_out, batches, writes=writes), held_out)

    def each(
        self, params: Any, held_out: Dataset, batches: int, *, writes: bool = True
    ) -> list[Evaluation]:
        """The same of several models at once, whose parameters have a first axis for them."""
        parts = list(self._read(params, held_out, batches, writes=writes, several=True))
        return [_figures(of_one, held_out) for of_one in apart(parts)]


def _figures(parts: Iterable[tuple[np.ndarray, Any]], held_out: Dataset) -> Evaluation:
    total, rows, events = 0.0, 0, 0.0
    for loss_T, count in parts:
        total = total + loss_T.astype(np.float64)
        rows += held_out.batch
        events += float(count)
    by_position = total / rows
    loss = float(by_position.mean())
    return Evaluation(
        loss=loss,
        bits_per_byte=loss / math.log(2) / held_out.bytes_per_token,
        loss_by_position=tuple(by_position.tolist()),
        tokens=rows * len(by_position),
        write_events=round(events),
    )


def _read(model: LanguageModel, params: Any, batch: dict[str, jax.Array], *, writes: bool):
    loss_BT, stats = token_losses(model, params, batch, writes=writes)
    events = sum(value for name, value in stats.items() if name.endswith(EVENTS))
    return loss_BT.sum(axis=0), events
