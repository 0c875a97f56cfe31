"""Read batches with Grain: shuffled, sharded over hosts, resumable at any step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

from hope_jax.data.manifest import Manifest
from hope_jax.data.tokenizers import Tokenizer
from hope_jax.data.windows import Windows

_ENDLESS = 1 << 48  # steps


class Rows(Protocol):
    """Rows of batches by number; what a row holds depends on nothing but its number."""

    def __len__(self) -> int:
        """Rows of one pass."""

    def row(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a row."""


@dataclasses.dataclass(frozen=True)
class Batches:
    """A split of some data; iterating gives this process's part of each batch.

    Attributes:
      tokenizer: between text and the tokens.
      split: "train" is endless, "validation" is read once and in order.
      source: the rows.
      identity: what the meaning of a row number depends on, for saved positions.
      batch: rows per step over all processes.
      rows: those of this process.
      workers: reader processes; 0 reads in threads.
    """

    tokenizer: Tokenizer
    split: str
    source: Rows
    identity: dict[str, Any]
    batch: int
    rows: tuple[int, ...]
    workers: int = 0

    @property
    def vocab_size(self) -> int:
        """Number of ids, also those that do not occur."""
        return self.tokenizer.vocab_size

    def __len__(self) -> int:
        """Full batches in one pass."""
        return len(self.source) // self.batch

    def __iter__(self) -> BatchIterator:
        return BatchIterator(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset(Batches):
    """A split of prepared text.

    Attributes:
      manifest: counts and origin.
      source: how the token stream is cut into `Windows`.
    """

    manifest: Manifest
    source: Windows

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token of this split: bits per byte = nats / ln 2 / this."""
        info = self.manifest.splits[self.split]
        return info.bytes / info.tokens

    def tokens(self) -> np.ndarray:
        """The whole split as one array, int32."""
        stream = self.source.stream
        return stream.read(0, stream.tokens)[0]


class BatchIterator(Iterator[dict[str, np.ndarray]]):
    """Batches: of text `tokens` int32 `[rows, length + 1]` and `reset` bool `[rows, length]`.

    The position is the number of rows that all processes together have read. It is the same
    in every process and holds for any number of processes, and any batch size.
    """

    def __init__(self, dataset: Batches):
        self._dataset = dataset
        self._position = 0
        self._reader: grain.DatasetIterator | None = None

    def __next__(self) -> dict[str, np.ndarray]:
        if self._reader is None:
            self._reader = self._open()
        batch = next(self._reader)
        self._position += self._dataset.batch
        return batch

    @property
    def tokenizer(self) -> Tokenizer:
        """Between text and the tokens."""
        return self._dataset.tokenizer

    def get_state(self) -> dict[str, Any]:
        """The position as a JSON-able dict."""
        return {"row": self._position, **self._dataset.identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a position that `get_state` gave.

        Raises:
          ValueError: the position belongs to other data or another order.
        """
        for key, value in self._dataset.identity.items():
            if state.get(key) != value:
                raise ValueError(
                    f"this position was saved with {key} {state.get(key)!r}, but the data now "
                    f"has {key} {value!r}, so it means another place; resume with the same "
                    "data, length, seed and reset, or start a new run"
                )
        self.close()
        self._position = int(state["row"])

    def close(self) -> None:
        """End the reader's threads and processes; the position stays."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self) -> grain.DatasetIterator:
        dataset = self._dataset
        rows = _Rows(dataset.source, dataset.batch, dataset.rows, self._position)
        if dataset.split == "train":
            steps = _ENDLESS
        else:
            steps = max(0, (len(dataset.source) - self._position) // dataset.batch)
        reading = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        batches = grain.MapDataset.range(steps).map(rows).to_iter_dataset(reading)
        if dataset.workers:
            if not flags.FLAGS.is_parsed():  # Grain reads absl flags when it starts processes
                flags.FLAGS.mark_as_parsed()
            batches = batches.mp_prefetch(grain.MultiprocessingOptions(dataset.workers))
        return iter(batches)


class _Rows:
    """Step number, counted from `position`, to the batch of this process."""

    def __init__(self, source: Rows, batch: int, rows: tuple[int, ...], position: int):
        self._source, self._batch = source, batch
        self._rows, self._position = rows, position

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        first = self._position + step * self._batch
        rows = [self._source.row(first + row) for row in self._rows]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
