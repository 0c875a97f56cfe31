"""Open prepared data: find it, check that it fits the run, say what to do if not."""

from __future__ import annotations

from collections.abc import Sequence

from hope_jax.config import DataConfig
from hope_jax.data.batches import Batches, Dataset
from hope_jax.data.prepared import find_split, more_text
from hope_jax.data.tasks.dataset import open_task
from hope_jax.data.tokenizers import Tokenizer
from hope_jax.data.windows import Windows


def open_dataset(
    config: DataConfig,
    tokenizer: Tokenizer | None = None,
    *,
    split: str = "train",
    rows: Sequence[int] | None = None,
) -> Batches:
    """Open a split of prepared data, or of a task.

    Args:
      config: with a `task`, its examples; else a `Dataset`, and `path` None means the shipped
        corpus.
      tokenizer: checked against the one that the data was made with; None takes that one.
      split: "train" is endless, shuffled anew in each epoch; "validation" is read once and
        in order.
      rows: those of each batch that this process reads, where several share it; see
        `hope_jax.parallel.local_rows`. None: all.

    Raises:
      ValueError: no such data or split, a shard that is missing or has another size than
        the manifest says, another tokenizer, a split too short for one window or batch, or
        rows that no batch has.

    >>> dataset = open_dataset(DataConfig(batch=4, length=32))
    >>> batch = next(iter(dataset))
    >>> batch["tokens"].shape, batch["reset"].shape, dataset.vocab_size
    ((4, 33), (4, 32), 256)
    """
    rows = range(config.batch) if rows is None else rows
    if not rows or min(rows) < 0 or max(rows) >= config.batch:
        raise ValueError(f"rows {rows} of a batch of {config.batch}; give some of them")
    if config.task is not None:
        return open_task(config, tokenizer, split, tuple(rows))
    return _open_text(config, tokenizer, split, tuple(rows))


def _open_text(
    config: DataConfig, tokenizer: Tokenizer | None, split: str, rows: tuple[int, ...]
) -> Dataset:
    prepared = find_split(config.path, tokenizer, split)
    folder, info = prepared.folder, prepared.info
    if info.tokens < config.length + 1:
        raise ValueError(
            f"the {split} split of {folder} has {info.tokens} tokens, one window of "
            f"data.length {config.length} needs {config.length + 1}; use a smaller data.length "
            f"or {more_text(split)}"
        )
    windows = Windows(
        stream=prepared.stream,
        length=config.length,
        seed=config.seed if split == "train" else None,
        documents=config.reset == "document",
    )
    if split != "train" and len(windows) < config.batch:
        raise ValueError(
            f"the {split} split of {folder} has {info.tokens} tokens = {len(windows)} windows "
            f"of data.length {config.length}, fewer than data.batch {config.batch}; use a "
            f"smaller batch or length, or {more_text(split)}"
        )
    return Dataset(
        tokenizer=prepared.tokenizer,
        manifest=prepared.manifest,
        split=split,
        source=windows,
        identity={
            "data": info.sha256[:16],
            "length": windows.length,
            "seed": windows.seed,
        },
        batch=config.batch,
        rows=rows,
        workers=config.workers,
    )
