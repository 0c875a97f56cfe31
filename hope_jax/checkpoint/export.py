"""Slow weights alone, to keep or to give away: without the optimizers a third as large."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hope_jax.checkpoint import inventory
from hope_jax.checkpoint.load import Loaded, load
from hope_jax.checkpoint.manager import CheckpointManager
from hope_jax.checkpoint.snapshot import Snapshot
from hope_jax.checkpoint.storage import read_json
from hope_jax.checkpoint.whole_file import write_whole
from hope_jax.config.paths import local_path

SETTLES = 5.0  # seconds after which nothing is written any more


def export(checkpoint: str | Path, folder: str | Path) -> Path:
    """Write the slow weights, configuration and tokenizer of a run as a checkpoint of its own.

    `hope_jax.load`, `hope_jax.Stream.open`, `hope generate` and `hope stream` take `folder`;
    training cannot go on from it, since the states of the levels' optimizers are not there.

    Args:
      checkpoint: the folder of a run, or of one checkpoint.
      folder: a new or an empty folder.

    Returns:
      the checkpoint that was written, `folder/<step>`.

    Raises:
      FileNotFoundError: there is nothing at `checkpoint`.
      ValueError: what is there cannot be read, or `folder` is not empty.
      OSError: the disk is full, or cannot be written; the folder is as it was.

    >>> export("runs/none", "runs/to_give_away")
    Traceback (most recent call last):
      ...
    FileNotFoundError: there is no run or checkpoint at runs/none
    """
    loaded = load(checkpoint)
    run = read_json(loaded.path, ("contents", "config"))["config"]
    return write_slow(loaded, run, empty_folder(folder))


def empty_folder(folder: str | Path) -> Path:
    """A folder to write to.

    Raises:
      ValueError: something is there.
    """
    folder = local_path(folder, "the folder to write to")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and not empty; give a new folder")
    return folder


def write_slow(loaded: Loaded, run: dict[str, Any], folder: Path) -> Path:
    """Write the slow weights of a model, what describes its run, and its tokenizer.

    Returns:
      the checkpoint, `folder/<step>`.

    Raises:
      OSError: the disk is full, or cannot be written (`WriteFailed` says so of the weights);
        the folder is as it was.
    """
    path = folder / str(loaded.step)
    with _whole_or_empty(folder):
        with contextlib.closing(CheckpointManager(folder, keep=1)) as manager:
            manager.save(Snapshot(loaded.step, loaded.params, {}, {}, {}, run))
        for mark in path.rglob("commit_success.txt"):
            # Orbax writes there where the folder lies on this machine; its being there counts
            write_whole(mark, "complete\n")
        inventory.write(path)  # has their sizes
        loaded.tokenizer.save(folder)  # for `hope prepare`
    return path


@contextlib.contextmanager
def _whole_or_empty(folder: Path) -> Iterator[None]:
    """Whatever cannot be written, the same command can be run again once it can."""
    there = folder.exists()
    try:
        yield
    except OSError:
        # Where one of Orbax' writers fails others go on, and may write what was just removed.
        quiet, deadline = 0, time.monotonic() + SETTLES
        while quiet < 3 and time.monotonic() < deadline:
            left = list(folder.iterdir()) if there else [folder] * folder.exists()
            for part in left:
                if part.is_dir():
                    shutil.rmtree(part, ignore_errors=True)
                else:
                    part.unlink(missing_ok=True)
            quiet = 0 if left else quiet + 1
            time.sleep(0.1)
        raise
