"""Read prepared data with Grain: shuffled, sharded over hosts, resumable at any step."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from hope_jax.config import DataConfig
from hope_jax.data.builder import Parts
from hope_jax.data.cache import prepared_corpus
from hope_jax.data.manifest import Manifest
from hope_jax.data.records import TokenStream
from hope_jax.data.tokenizers import Tokenizer, load_tokenizer
from hope_jax.data.windows import Windows

_ENDLESS = 1 << 48  # steps


def open_dataset(
    config: DataConfig,
    tokenizer: Tokenizer | None = None,
    *,
    split: str = "train",
    process_index: int | None = None,
    process_count: int | None = None,
) -> Dataset:
    """Open a split of prepared data.

    Args:
      config: `path` None means the shipped corpus.
      tokenizer: checked against the one that the data was made with; None takes that one.
      split: "train" is endless, shuffled anew in each epoch; "validation" is read once and
        in order.
      process_index, process_count: which part of each batch this process reads; by default
        those of JAX.

    Raises:
      ValueError: no such data or split, another tokenizer, a split too short for one
        window or batch, or a batch that the processes cannot share equally.

    >>> dataset = open_dataset(DataConfig(batch=4, length=32))
    >>> batch = next(iter(dataset))
    >>> batch["tokens"].shape, batch["reset"].shape, dataset.vocab_size
    ((4, 33), (4, 32), 256)
    """
    folder = pathlib.Path(config.path).expanduser() if config.path else prepared_corpus()
    manifest = Manifest.read(folder)
    if split not in manifest.splits:
        raise ValueError(f"{folder} has no split {split!r}; it has {list(manifest.splits)}")
    saved = load_tokenizer(folder)
    if saved.fingerprint != manifest.fingerprint:
        raise ValueError(
            f"the tokenizer in {folder} is {_name(saved)}, but its tokens were made with "
            f"{manifest.tokenizer} {manifest.fingerprint}; prepare the data again"
        )
    if tokenizer is not None and tokenizer.fingerprint != manifest.fingerprint:
        raise ValueError(
            f"{folder} was made with tokenizer {_name(saved)}, not with the given "
            f"{_name(tokenizer)}; prepare the text again with that one"
        )
    if process_index is None or process_count is None:
        import jax

        process_index, process_count = jax.process_index(), jax.process_count()
    if config.batch % process_count or not 0 <= process_index < process_count:
        raise ValueError(
            f"data.batch {config.batch} cannot be shared by {process_count} processes "
            f"(this is number {process_index}); make it a multiple of {process_count}"
        )
    tokens = manifest.splits[split].tokens
    if tokens < config.length + 1:
        raise ValueError(
            f"the {split} split of {folder} has {tokens} tokens, one window of data.length "
            f"{config.length} needs {config.length + 1}; use a smaller data.length or "
            f"{_more(split)}"
        )
    windows = Windows(
        stream=TokenStream(
            Parts(folder, split, -(-tokens // manifest.record), manifest.part), tokens
        ),
        length=config.length,
        seed=config.seed if split == "train" else None,
        documents=config.reset == "document",
    )
    if split != "train" and len(windows) < config.batch:
        raise ValueError(
            f"the {split} split of {folder} has {tokens} tokens = {len(windows)} windows of "
            f"data.length {config.length}, fewer than data.batch {config.batch}; use a "
            f"smaller batch or length, or {_more(split)}"
        )
    rows = config.batch // process_count
    return Dataset(
        tokenizer=saved,
        manifest=manifest,
        split=split,
        windows=windows,
        batch=config.batch,
        rows=range(process_index * rows, (process_index + 1) * rows),
        workers=config.workers,
    )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A split of prepared data; iterating gives this process's part of each batch.

    Attributes:
      tokenizer: the one that the data was made with.
      manifest: counts and origin.
      split: "train" or "validation".
      windows: how the token stream is cut.
      batch: rows per step over all processes.
      rows: those of this process.
      workers: reader processes; 0 reads in threads.
    """

    tokenizer: Tokenizer
    manifest: Manifest
    split: str
    windows: Windows
    batch: int
    rows: range
    workers: int = 0

    @property
    def vocab_size(self) -> int:
        """Number of ids, also those that do not occur."""
        return self.manifest.vocab_size

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token of this split: bits per byte = nats / ln 2 / this."""
        info = self.manifest.splits[self.split]
        return info.bytes / info.tokens

    def tokens(self) -> np.ndarray:
        """The whole split as one array, int32."""
        stream = self.windows.stream
        return stream.read(0, stream.tokens)[0]

    def __len__(self) -> int:
        """Full batches in one pass."""
        return len(self.windows) // self.batch

    def __iter__(self) -> BatchIterator:
        return BatchIterator(self)


class BatchIterator(Iterator[dict[str, np.ndarray]]):
    """Batches `tokens` int32 `[rows, length + 1]` and `reset` bool `[rows, length]`.

    The position is the number of rows that all processes together have read. It is the same
    in every process and holds for any number of processes, and any batch size.
    """

    def __init__(self, dataset: Dataset):
        self._dataset = dataset
        self._position = 0
        self._reader: grain.DatasetIterator | None = None

    def __next__(self) -> dict[str, np.ndarray]:
        if self._reader is None:
            self._reader = self._open()
        batch = next(self._reader)
        self._position += self._dataset.batch
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position as a JSON-able dict."""
        return {"row": self._position, **self._identity()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a position that `get_state` gave.

        Raises:
          ValueError: the position belongs to other data or another order.
        """
        for key, value in self._identity().items():
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

    def _identity(self) -> dict[str, Any]:
        dataset = self._dataset
        return {
            "data": dataset.manifest.splits[dataset.split].sha256[:16],
            "length": dataset.windows.length,
            "seed": dataset.windows.seed,
        }

    def _open(self) -> grain.DatasetIterator:
        dataset = self._dataset
        rows = _Rows(dataset.windows, dataset.batch, dataset.rows, self._position)
        if dataset.split == "train":
            steps = _ENDLESS
        else:
            steps = max(0, (len(dataset.windows) - self._position) // dataset.batch)
        reading = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        batches = grain.MapDataset.range(steps).map(rows).to_iter_dataset(reading)
        if dataset.workers:
            if not flags.FLAGS.is_parsed():  # Grain reads absl flags when it starts processes
                flags.FLAGS.mark_as_parsed()
            batches = batches.mp_prefetch(grain.MultiprocessingOptions(dataset.workers))
        return iter(batches)


class _Rows:
    """Step number, counted from `position`, to the batch of this process."""

    def __init__(self, windows: Windows, batch: int, rows: range, position: int):
        self._windows, self._order = windows, windows.order()
        self._batch, self._rows, self._position = batch, rows, position

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        first = self._position + step * self._batch
        rows = [self._windows.row(self._order, first + row) for row in self._rows]
        return {key: np.stack([row[key] for row in rows]) for key in ("tokens", "reset")}


def _name(tokenizer: Tokenizer) -> str:
    return f"{tokenizer.name} {tokenizer.fingerprint}"


def _more(split: str) -> str:
    if split == "train":
        return "more text"
    return "a larger held-out part (hope prepare --validation)"
