"""Right answers on held-out examples of a task, with chance beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hope_jax.config.tasks import answers_of
from hope_jax.data import TaskData
from hope_jax.models import LanguageModel
from hope_jax.parallel import one_device, place_batch, replicated
from hope_jax.training.objective import EVENTS, judge


@dataclasses.dataclass(frozen=True)
class Answers:
    """How a task was answered.

    Attributes:
      loss: nats per answer, every example counting the same.
      accuracy: share of right answers, or of examples with nothing but right answers if the
        task is judged by examples.
      error: standard error of `accuracy`, over examples.
      chance: `accuracy` of a guess that has read nothing.
      tokens_right: share of right answers.
      examples_right: share of examples with nothing but right answers.
      examples: that were read.
      asked: answers that were asked for.
      length: tokens of an example.
      write_events: memory updates that happened; 0 with writes off or without memories.
    """

    loss: float
    accuracy: float
    error: float
    chance: float
    tokens_right: float
    examples_right: float
    examples: int
    asked: int
    length: int
    write_events: int

    def line(self) -> str:
        """The figures in one line."""
        return (
            f"held-out loss {self.loss:.4f}  right {100 * self.accuracy:.2f} % "
            f"(standard error {100 * self.error:.2f}, chance {100 * self.chance:.2f})  of "
            f"{self.asked:,} answers in {self.examples:,} examples of {self.length:,} tokens  "
            f"memory updates {self.write_events:,}"
        )

    def logged(self) -> dict[str, float]:
        """What the log of a run holds of it."""
        return {
            "eval/loss": self.loss,
            "eval/accuracy": self.accuracy,
            "eval/examples_right": self.examples_right,
            "eval/write_events": self.write_events,
        }


class AnswerEvaluator:
    """Evaluates parameters on held-out examples; compiled once for each kind of reading.

    Args:
      model: the language model.
      mesh: that of the parameters; one device by default.
    """

    def __init__(self, model: LanguageModel, mesh: Mesh | None = None):
        mesh = mesh or one_device()
        self._mesh = mesh
        self._read = jax.jit(
            functools.partial(_read, model),
            static_argnames="writes",
            out_shardings=replicated(mesh),
        )

    def __call__(
        self,
        params: Any,
        held_out: TaskData,
        batches: int,
        *,
        writes: bool = True,
        on_batch: Callable[[], None] = lambda: None,
    ) -> Answers:
        """Answers to the first `batches` batches of held-out examples.

        `on_batch` is called after each.
        """
        key, parts = answers_of(held_out.source.config), []
        with contextlib.closing(iter(held_out)) as reader:
            for batch in itertools.islice(reader, batches):
                batch = place_batch(batch, held_out.rows, held_out.batch, self._mesh)
                read = self._read(params, batch, writes=writes)
                targets = batch["tokens"][:, 1:] if key == "tokens" else batch[key]
                parts.append(jax.device_get((*read, targets, batch["weight"] > 0)))
                on_batch()
        losses_B, right_BT, events, targets_BT, asked_BT = zip(*parts, strict=True)
        counted = _count(
            np.concatenate(right_BT), np.concatenate(asked_BT), np.concatenate(targets_BT)
        )
        tokens, examples, common_tokens, common_examples = counted
        by_example = held_out.source.config.judged == "example"
        scores = examples if by_example else tokens
        chance = held_out.source.task.chance
        if chance is None:
            chance = float((common_examples if by_example else common_tokens).mean())
        return Answers(
            loss=float(np.concatenate(losses_B).astype(np.float64).mean()),
            accuracy=float(scores.mean()),
            error=float(scores.std(ddof=1) / math.sqrt(len(scores)))
            if len(scores) > 1
            else 0.0,
            chance=chance,
            tokens_right=float(tokens.mean()),
            examples_right=float(examples.mean()),
            examples=len(scores),
            asked=int(sum(asked.sum() for asked in asked_BT)),
            length=asked_BT[0].shape[1],
            write_events=round(float(sum(events))),
        )


def _read(model: LanguageModel, params: Any, batch: dict[str, jax.Array], *, writes: bool):
    judged = judge(model, params, batch, writes=writes)
    events = sum(value for name, value in judged.stats.items() if name.endswith(EVENTS))
    loss_B = (judged.loss_BT * batch["weight"]).mean(axis=1)
    return loss_B, judged.right_BT, jnp.asarray(events)


def _count(right_NT: np.ndarray, asked_NT: np.ndarray, targets_NT: np.ndarray):
    """By example: share right, all right, and both for the commonest answer of all."""
    answers = targets_NT[asked_NT]
    common = np.bincount(answers).argmax()
    found = []
    for hit_NT in (right_NT, targets_NT == common):
        share_N = (hit_NT & asked_NT).sum(axis=1) / asked_NT.sum(axis=1)
        found += [share_N, (hit_NT | ~asked_NT).all(axis=1).astype(np.float64)]
    tokens, examples, common_tokens, common_examples = found
    return tokens, examples, common_tokens, common_examples
