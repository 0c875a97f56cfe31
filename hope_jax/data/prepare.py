"""Turn text into a prepared folder, all or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from hope_jax.data.manifest import FILE as MANIFEST_FILE
from hope_jax.data.manifest import Manifest, SplitInfo
from hope_jax.data.records import RECORD, StreamStats, token_dtype, write_records
from hope_jax.data.sources import Source
from hope_jax.data.tokenizers import Tokenizer

SPLITS = ("train", "validation")


def prepare(
    folder: str | pathlib.Path,
    source: Source,
    tokenizer: Tokenizer,
    *,
    force: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Manifest:
    """Write `source` as token records into `folder`, which appears only when complete.

    Args:
      folder: the new folder; it can be moved afterwards.
      source: the documents.
      tokenizer: saved beside the records.
      force: replace `folder` if it holds prepared data.
      advance: called with the number of bytes done.

    Returns:
      What `manifest.json` in the folder says.

    Raises:
      ValueError: the folder exists, the text is empty, or the tokenizer refuses it.
      OSError: the folder cannot be written, e.g. a full disk; nothing is left behind.
    """
    from hope_jax.data.builder import PART, write_parts  # TensorFlow Datasets

    folder = pathlib.Path(folder).expanduser().absolute()
    check_target(folder, force)
    with _staging(folder) as stage:
        dtype = token_dtype(tokenizer.vocab_size)
        stats = {split: StreamStats() for split in SPLITS}
        for split in SPLITS:
            documents = source.documents(split)
            records = write_records(documents, tokenizer, stats[split], advance)
            write_parts(stage, split, records, dtype)
        if not stats["train"].tokens:
            raise ValueError("there is no text to train on: every document is empty")
        tokenizer.save(stage)
        manifest = Manifest(
            source=source.describe(),
            tokenizer=tokenizer.name,
            fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            dtype=np.dtype(dtype).name,
            record=RECORD,
            part=PART,
            splits={split: SplitInfo(**dataclasses.asdict(stats[split])) for split in SPLITS},
        )
        manifest.write(stage)
        _publish(stage, folder, force)
    return manifest


def check_target(folder: pathlib.Path, force: bool) -> None:
    """Refuse to overwrite anything but prepared data, and that only with `force`.

    Raises:
      ValueError: `folder` is in the way.
    """
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MANIFEST_FILE).is_file():
        raise ValueError(f"{folder} exists and is not prepared data; choose another folder")
    if not force:
        raise ValueError(f"{folder} is already prepared; use --force to replace it")


@contextlib.contextmanager
def _staging(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary neighbour of `folder` that is gone afterwards, whatever happens."""
    stage = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        mask = os.umask(0)
        os.umask(mask)
        stage.chmod(0o777 & ~mask)
        yield stage
    except OSError as error:
        raise OSError(f"{folder} cannot be written: {error}; nothing was kept") from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _publish(stage: pathlib.Path, folder: pathlib.Path, force: bool) -> None:
    """Rename `stage` to `folder`; with `force` the old one moves away first."""
    check_target(folder, force)
    old = None
    if folder.is_dir() and any(folder.iterdir()):
        old = stage.with_name(stage.name + ".old")
        os.rename(folder, old)
    try:
        os.rename(stage, folder)
    except OSError:
        if old is not None:
            os.rename(old, folder)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
