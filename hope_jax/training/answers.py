"""Right answers on held-out examples of a task, with chance beside them."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hope_jax.data import TaskData
from hope_jax.models import LanguageModel
from hope_jax.training.held_out import HeldOutReader, apart
from hope_jax.training.objective import EVENTS, judge

DEPTHS = 5  # bins that accuracy is told by


@dataclasses.dataclass(frozen=True)
class AtDepth:
    """How the examples were answered in which what is asked stands between two depths.

    Attributes:
      start: from 0, the start of the text around it.
      stop: up to 1, its end.
      accuracy: as of `Answers`; None where there are no examples.
      error: standard error of `accuracy`; None for fewer than two examples.
      examples: that there are.
    """

    start: float
    stop: float
    accuracy: float | None
    error: float | None
    examples: int


@dataclasses.dataclass(frozen=True)
class Answers:
    """How a task was answered.

    Attributes:
      loss: nats per answer, every example counting the same.
      accuracy: share of right answers, or of examples with nothing but right answers if the
        task is judged by examples.
      error: standard error of `accuracy`, over examples.
      chance: `accuracy` of the best answers that are the same for every example, whatever was
        read; how many answers were asked before may count.
      tokens_right: share of right answers.
      examples_right: share of examples with nothing but right answers.
      examples: that were read.
      asked: answers that were asked for.
      length: tokens of an example.
      write_events: memory updates that happened; 0 with writes off or without memories.
      by_depth: the same accuracy apart for `DEPTHS` equal parts of the text, if the examples
        have a depth.
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
    by_depth: tuple[AtDepth, ...] | None = None

    def line(self) -> str:
        """The figures in one line."""
        return (
            f"held-out loss {self.loss:.4f}  right {100 * self.accuracy:.2f} % "
            f"(standard error {100 * self.error:.2f}, chance {100 * self.chance:.3g})  of "
            f"{self.asked:,} answers in {self.examples:,} examples of {self.length:,} tokens  "
            f"memory updates {self.write_events:,}"
        )

    def depth_lines(self) -> list[str]:
        """A line for every depth that has examples."""
        return [
            f"  depth {part.start:.1f} to {part.stop:.1f}: right {100 * part.accuracy:.2f} % "
            f"(standard error {_percent(part.error)}, chance {100 * self.chance:.3g})  of "
            f"{part.examples:,} examples"
            for part in self.by_depth or ()
            if part.examples
        ]

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
        self._read = HeldOutReader(_read, model, mesh)

    def __call__(
        self,
        params: Any,
        held_out: TaskData,
        batches: int,
        *,
        writes: bool = True,
        examples: int | None = None,
        on_batch: Callable[[], None] = lambda: None,
    ) -> Answers:
        """Answers to the first `batches` batches of held-out examples.

        With `examples` no more than that many count. `on_batch` is called after each batch.
        """
        parts = []
        for part in self._read(params, held_out, batches, writes=writes):
            parts.append(part)
            on_batch()
        return _figures(parts, held_out, examples)

    def each(
        self, params: Any, held_out: TaskData, batches: int, *, writes: bool = True
    ) -> list[Answers]:
        """The same of several models at once, whose parameters have a first axis for them."""
        parts = list(self._read(params, held_out, batches, writes=writes, several=True))
        return [_figures(of_one, held_out) for of_one in apart(parts)]


def _figures(
    parts: Sequence[_Read], held_out: TaskData, examples: int | None = None
) -> Answers:
    read = jax.tree.map(lambda *xs: np.concatenate(xs)[:examples], *parts)
    asked_NT = read.asked_BT
    hit_NT = read.right_BT & asked_NT
    tokens = hit_NT.sum(axis=1) / asked_NT.sum(axis=1)
    whole = (hit_NT == asked_NT).all(axis=1).astype(np.float64)
    by_example = held_out.source.config.judged == "example"
    scores = whole if by_example else tokens
    chance = held_out.source.task.chance
    if chance is None:
        chance = _commonest(read.targets_BT, asked_NT, by_example)
    return Answers(
        loss=float(read.loss_B.astype(np.float64).mean()),
        accuracy=float(scores.mean()),
        error=_error(scores) or 0.0,
        chance=chance,
        tokens_right=float(tokens.mean()),
        examples_right=float(whole.mean()),
        examples=len(scores),
        asked=int(asked_NT.sum()),
        length=asked_NT.shape[1],
        write_events=int(read.events_B.sum()),
        by_depth=None if read.depth_B is None else _by_depth(scores, read.depth_B),
    )


@flax.struct.dataclass
class _Read:
    """What is to be known of a batch, on every process."""

    loss_B: jax.Array
    right_BT: jax.Array
    asked_BT: jax.Array
    targets_BT: jax.Array
    depth_B: jax.Array | None
    events_B: jax.Array


def _read(
    model: LanguageModel, params: Any, batch: dict[str, jax.Array], *, writes: bool
) -> _Read:
    judged = judge(model, params, batch, writes=writes)
    events = sum(value for name, value in judged.stats.items() if name.endswith(EVENTS))
    rows = len(batch["tokens"])
    return _Read(
        loss_B=(judged.loss_BT * batch["weight"]).mean(axis=1),
        right_BT=judged.right_BT,
        asked_BT=batch["weight"] > 0,
        targets_BT=batch.get("legal", batch.get("targets", batch["tokens"][:, 1:])),
        depth_B=batch.get("depth"),
        events_B=jnp.full(rows, events // rows),  # examples are equally long
    )


def _error(scores: np.ndarray) -> float | None:
    """Standard error of the mean."""
    return float(scores.std(ddof=1) / math.sqrt(len(scores))) if len(scores) > 1 else None


def _commonest(targets_NT: np.ndarray, asked_NT: np.ndarray, by_example: bool) -> float:
    """Accuracy of the answers that are right most often: a token, or a sequence for all.

    Where examples are judged as wholes, the n-th answer is the same in all of them; shorter
    ones ask for the beginning of it.
    """
    if by_example:
        answers = zip(targets_NT, asked_NT, strict=True)
        count = collections.Counter(tuple(targets[asked]) for targets, asked in answers)
        lengths = sorted({len(answer) for answer in count})
        right = (
            sum(count[answer[:n]] for n in lengths if n <= len(answer)) for answer in count
        )
        return max(right) / len(asked_NT)
    hit_NT = targets_NT == np.bincount(targets_NT[asked_NT]).argmax()
    return float(((hit_NT & asked_NT).sum(axis=1) / asked_NT.sum(axis=1)).mean())


def _by_depth(scores: np.ndarray, depths: np.ndarray) -> tuple[AtDepth, ...]:
    where = np.minimum((depths * DEPTHS).astype(int), DEPTHS - 1)
    found = []
    for part in range(DEPTHS):
        some = scores[where == part]
        accuracy = float(some.mean()) if len(some) else None
        start, stop = part / DEPTHS, (part + 1) / DEPTHS
        found.append(AtDepth(start, stop, accuracy, _error(some), len(some)))
    return tuple(found)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.2f}"
