"""Open prepared data: find it, check that it fits the run, say what to do if not."""

from __future__ import annotations

from collections.abc import Sequence

from hope_jax.config import DataConfig
from hope_jax.config.paths import local_path
from hope_jax.data.batches import Batches, Dataset
from hope_jax.data.builder import Parts
from hope_jax.data.cache import prepared_corpus
from hope_jax.data.manifest import Manifest
from hope_jax.data.records import TokenStream
from hope_jax.data.tasks.dataset import open_task
from hope_jax.data.tokenizers import Tokenizer, load_tokenizer
from hope_jax.data.verify import check_sizes
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
    folder = local_path(config.path, "data.path") if config.path else prepared_corpus()
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
    tokens = manifest.splits[split].tokens
    if tokens < config.length + 1:
        raise ValueError(
            f"the {split} split of {folder} has {tokens} tokens, one window of data.length "
            f"{config.length} needs {config.length + 1}; use a smaller data.length or "
            f"{_more(split)}"
        )
    info = manifest.splits[split]
    check_sizes(folder, info.shards)
    windows = Windows(
        stream=TokenStream(Parts(folder, split, info.records, manifest.part), info.streams),
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
    return Dataset(
        tokenizer=saved,
        manifest=manifest,
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


def _name(tokenizer: Tokenizer) -> str:
    return f"{tokenizer.name} {tokenizer.fingerprint}"


def _more(split: str) -> str:
    if split == "train":
        return "more text"
    return "a larger held-out part (hope prepare --validation)"
