"""What is compared: learners that meet task after task and answer in between."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from class_incremental.classes import Example, Task
from class_incremental.coding import Coder
from class_incremental.fisher import fisher_of, hold, nothing_held, penalty
from class_incremental.levels import read_row
from class_incremental.model import ROWS, answers, label_losses, with_added

import hope_jax
from hope_jax.models import LanguageModel
from hope_jax.models.in_context import fresh_fast, with_slow_weights
from hope_jax.streams.levels import frozen_config, learning_config

BATCH = 10  # examples of a gradient step
WINDOW = 256  # tokens that are read in one context


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an arm is set to; what does not concern it is left alone.

    Attributes:
      chunks: tokens per update of each level, fastest first.
      rule, clip, blocks: of the levels' updates.
      lr: one for each level, or that of AdamW.
      learns_from: of levels: "text", all tokens, or "label", the token of the class.
      context: of levels: "row", as many examples as fit in a row, or "example", each alone, as
        queries are.
      passes: over the examples of a task.
      strength: of the penalty of EWC.
    """

    chunks: tuple[int, ...] = ()
    rule: Literal["sgd", "momentum", "adam"] = "sgd"
    lr: float | tuple[float, ...] = 1e-3
    clip: float = 1.0
    blocks: int = 3
    learns_from: Literal["text", "label"] = "text"
    context: Literal["row", "example"] = "row"
    passes: int = 1
    strength: float = 0.0


class Learner:
    """A learner that does not learn: the base model as it is.

    Args:
      base: the model.
      coder: makes tokens of examples.
      settings: of the arm.
      seed: of the order of examples, where it is the learner's own.
    """

    def __init__(self, base: hope_jax.Loaded, coder: Coder, settings: Settings, seed: int):
        self.base, self.coder, self.settings = base, coder, settings
        self.config = frozen_config(base.config.model)
        self.params = {n: tree for n, tree in base.params.items() if n != "in_context"}
        self.rng = np.random.default_rng((seed, 1))
        self.seen: list[int] = []

    def learn(self, task: Task) -> None:
        """Meet a task."""
        self.seen += [self.coder.labels[intent] for intent in task.intents]

    def answer(self, queries: Sequence[Example]) -> np.ndarray:
        """The token of a class that was seen, for each query."""
        return answers(self.config, self.params, self.coder, queries, self.seen)

    def measured(self, number: int, count: int) -> bool:
        """Whether it can be asked after task `number` of `count`."""
        del number, count
        return True


class Levels(Learner):
    """The feed-forward layers of the last blocks as levels, which learn while they read.

    Each row of examples is a context of its own, and queries are answered from the weights.
    """

    def __init__(self, base, coder, settings, seed):
        super().__init__(base, coder, settings, seed)
        self._levels = learning_config(
            base.config.model,
            settings.chunks,
            lr=settings.lr,
            blocks=settings.blocks,
            stack="interleaved",
            rule=settings.rule,
            clip=settings.clip,
        )
        self._slow = with_slow_weights(self._levels, base.params)
        fast = fresh_fast(self._levels, self._slow, 1)
        self._weights, self._state = fast.weights, fast.levels

    def learn(self, task: Task) -> None:
        """Read the examples of the task."""
        super().learn(task)
        rows = list(self.coder.rows(task.examples, WINDOW))
        for row_T in rows * self.settings.passes:
            counted_T = row_T == self.coder.arrow
            if self.settings.learns_from == "text":
                counted_T = np.arange(WINDOW) < WINDOW - 1
            self._weights, self._state = read_row(
                self._levels,
                self._slow,
                self._weights,
                self._state,
                row_T,
                counted_T,
                self._dropped(row_T),
            )
        self.params = with_added(self._levels, self._slow, self._weights)

    def _dropped(self, row_T: np.ndarray) -> np.ndarray:
        """Where an example begins that is a context of its own."""
        if self.settings.context == "row":
            return np.zeros(len(row_T), bool)
        return row_T == self.coder.newline


class InContext(Learner):
    """Nothing learns; queries stand after as many examples as fit, of as many classes."""

    def __init__(self, base, coder, settings, seed):
        super().__init__(base, coder, settings, seed)
        self._met: dict[str, list[Example]] = {}
        self._state: Any = None

    def learn(self, task: Task) -> None:
        """Read a context anew: one example of a class after the other, in random order."""
        super().learn(task)
        for example in task.examples:
            self._met.setdefault(example.intent, []).append(example)
        shown = [found[-1] for found in self._met.values()]
        self.rng.shuffle(shown)
        ids_T = self.coder.context(shown, WINDOW - self.coder.longest)
        one = _read(self.config, self.params, ids_T)
        self._state = jax.tree.map(lambda x: jnp.repeat(x, ROWS, axis=1), one)

    def answer(self, queries: Sequence[Example]) -> np.ndarray:
        """The token of a class that was seen, for each query."""
        return answers(self.config, self.params, self.coder, queries, self.seen, self._state)


class FineTuned(Learner):
    """AdamW on the examples of each task; all weights learn, from the token of the class."""

    held: Any = None

    def learn(self, task: Task) -> None:
        """Go over the examples of the task."""
        super().learn(task)
        self.train(task.examples)

    def train(self, examples: Sequence[Example]) -> None:
        """Go over examples, in another order each time but the first."""
        state, examples = _ADAM.init(self.params), list(examples)
        for number in range(self.settings.passes):
            if number:
                self.rng.shuffle(examples)
            for batch in _batches(self.coder, examples):
                self.params, state = _step(
                    self.config,
                    self.params,
                    state,
                    (batch.ids_NT, batch.last_N, batch.label_N),
                    self.held,
                    self.settings.lr,
                    self.settings.strength,
                )


class Consolidated(FineTuned):
    """The same with the penalty of EWC."""

    def __init__(self, base, coder, settings, seed):
        super().__init__(base, coder, settings, seed)
        self.held = nothing_held(self.params)

    def learn(self, task: Task) -> None:
        """Go over the examples, and see which weights they need."""
        super().learn(task)
        fisher = fisher_of(self.config, self.params, _batches(self.coder, task.examples))
        self.held = hold(self.held, fisher, self.params)


class Joint(FineTuned):
    """The base trained anew on all examples so far in random order: nothing to forget.

    It is trained, and asked, after the last task.
    """

    def __init__(self, base, coder, settings, seed):
        super().__init__(base, coder, settings, seed)
        self._begin, self._met = self.params, []

    def learn(self, task: Task) -> None:
        """Remember the examples of the task."""
        Learner.learn(self, task)
        self._met += task.examples

    def answer(self, queries: Sequence[Example]) -> np.ndarray:
        """The token of a class that was seen, for each query."""
        if self._met:
            self.params = self._begin
            self.train([self._met[i] for i in self.rng.permutation(len(self._met))])
        return super().answer(queries)

    def measured(self, number: int, count: int) -> bool:
        """After the last task."""
        return number == count


_ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(b1=0.9, b2=0.95))


@functools.partial(jax.jit, static_argnames="config")
def _step(config, params, state, batch, held, lr, strength):
    def loss(params):
        found = label_losses(config, params, *batch).mean()
        return found if held is None else found + penalty(held, params, strength)

    updates, state = _ADAM.update(jax.grad(loss)(params), state)
    return jax.tree.map(lambda p, u: p - lr * u, params, updates), state


@functools.partial(jax.jit, static_argnames="config")
def _read(config, params, ids_T):
    return LanguageModel(config).apply({"params": params}, ids_T[None]).state


def _batches(coder: Coder, examples: Sequence[Example]) -> Iterator:
    for start in range(0, len(examples), BATCH):
        yield coder.batch(examples[start : start + BATCH])
