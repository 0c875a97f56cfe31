"""Examples of a task as batches, read by the ordinary loop."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json

import grain
import numpy as np

from hope_jax.config import DataConfig, to_dict
from hope_jax.config.tasks import TaskConfig, answers_of
from hope_jax.data.batches import Batches
from hope_jax.data.prepared import find_split
from hope_jax.data.tasks.registry import make_task, make_text_task
from hope_jax.data.tasks.task import Example, SymbolTask, Task
from hope_jax.data.tokenizers import SymbolTokenizer, Tokenizer

HELD_OUT = 1 << 20  # examples of a held-out pass; more than anyone reads
_SPLITS = {"train": 0, "validation": 1}


@dataclasses.dataclass(frozen=True)
class TaskRows:
    """Examples by number.

    A training example depends on the seed and its number, a held-out one on its number alone:
    runs with different seeds are judged by the same examples.

    Attributes:
      task: what makes them.
      config: of the task.
      split: "train" or "validation".
      seed: of the training examples.
    """

    task: Task
    config: TaskConfig
    split: str
    seed: int

    def __len__(self) -> int:
        """Examples of one pass."""
        if self.split == "train" and self.config.examples is not None:
            return self.config.examples
        return HELD_OUT

    @functools.cached_property
    def _order(self) -> grain.MapDataset:
        order = grain.MapDataset.range(len(self))
        return order.seed(self.seed).shuffle().repeat()

    def example(self, number: int) -> Example:
        """The example of this number."""
        if self.split == "train":
            if self.config.examples is not None:
                number = self._order[number]
            source = [_SPLITS["train"], number, self.seed]
        else:
            source = [_SPLITS[self.split], number]
        return self.task.example(np.random.default_rng(source))

    def row(self, number: int) -> dict[str, np.ndarray]:
        """An example as arrays.

        `tokens` int32 `[T + 1]`, `reset` bool `[T]`, and `weight` float32 `[T]`: 0 where
        nothing is asked, and of mean 1, so that every example counts the same. If the answers
        are not in the text, `targets` or `legal`, int32 `[T]`. A held-out example also has its
        `depth`, float32 `[]`, if there is one; training has no use for it.
        """
        example = self.example(number)
        length = len(example.inputs_T)
        tokens = np.append(example.inputs_T, np.int32(example.last))
        reset = np.zeros(length, bool)
        reset[0] = True
        asked = example.asked_T.astype(np.float32)
        row = {"tokens": tokens, "reset": reset, "weight": asked * (length / asked.sum())}
        if self.config.answers != "next":
            row[answers_of(self.config)] = example.targets_T
        if self.split != "train" and example.depth is not None:
            row["depth"] = np.float32(example.depth)
        return row


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskData(Batches):
    """Batches of a task's examples.

    Attributes:
      source: the examples.
    """

    source: TaskRows


def open_task(
    config: DataConfig, tokenizer: Tokenizer | None, split: str, rows: tuple[int, ...]
) -> TaskData:
    """The examples of `config.task`.

    Raises:
      ValueError: no such split, a length that does not fit, the tokenizer of another task or
        text, or a file that is missing or wrong.
    """
    if split not in _SPLITS:
        raise ValueError(f"a task has no split {split!r}; it has {list(_SPLITS)}")
    if config.task.over == "text":
        text = find_split(config.path, tokenizer, split)
        task = make_text_task(config.task, config.length, text)
        own, source = task.tokenizer, task.source
    else:
        task = make_task(config.task, config.length)
        own, source = _symbols(config.task, task, tokenizer), ""
    plain = json.dumps(to_dict(config.task), sort_keys=True) + source
    seed = config.seed if split == "train" else None
    return TaskData(
        tokenizer=own,
        split=split,
        source=TaskRows(task, config.task, split, config.seed),
        identity={
            "data": hashlib.sha256(plain.encode()).hexdigest()[:16],
            "length": config.length,
            "seed": seed,
        },
        batch=config.batch,
        rows=rows,
        workers=config.workers,
    )


def _symbols(
    config: TaskConfig, task: SymbolTask, tokenizer: Tokenizer | None
) -> SymbolTokenizer:
    own = SymbolTokenizer(task.symbols)
    if tokenizer is not None and tokenizer.fingerprint != own.fingerprint:
        raise ValueError(
            f"task {config.type} has {own.vocab_size} symbols, {own.fingerprint}, and not "
            f"those of the given tokenizer ({tokenizer.name}, {tokenizer.vocab_size} ids, "
            f"{tokenizer.fingerprint}); use the fields that the model was trained with"
        )
    return own
