"""Held-out loss, by position in the window, with and without memory writes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from hope_jax.models import LanguageModel
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


class Evaluator:
    """Evaluates parameters on held-out batches; compiled once for each kind of reading."""

    def __init__(self, model: LanguageModel, bytes_per_token: float):
        self._bytes_per_token = bytes_per_token
        self._read = jax.jit(functools.partial(_read, model), static_argnames="writes")

    def __call__(
        self, params: Any, batches: Iterable[dict[str, np.ndarray]], *, writes: bool = True
    ) -> Evaluation:
        """Loss over `batches`.

        Raises:
          ValueError: there is no batch.
        """
        total, rows, events = 0.0, 0, 0.0
        for batch in batches:
            loss_T, count = jax.device_get(
                self._read(params, jax.device_put(batch), writes=writes)
            )
            total = total + loss_T.astype(np.float64)
            rows += len(batch["tokens"])
            events += float(count)
        if not rows:
            raise ValueError("there is no held-out batch to evaluate on")
        by_position = total / rows
        loss = float(by_position.mean())
        return Evaluation(
            loss=loss,
            bits_per_byte=loss / math.log(2) / self._bytes_per_token,
            loss_by_position=tuple(by_position.tolist()),
            tokens=rows * len(by_position),
            write_events=round(events),
        )


def _read(model: LanguageModel, params: Any, batch: dict[str, jax.Array], *, writes: bool):
    loss_BT, stats = token_losses(model, params, batch, writes=writes)
    events = sum(value for name, value in stats.items() if name.endswith(EVENTS))
    return loss_BT.sum(axis=0), events
