"""What a task is: a name, the files it wants, and how it measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hope_jax.evaluation.measurement import Measurement
from hope_jax.evaluation.scorer import Scorer


class Progress(Protocol):
    """Told how far a task is."""

    def start(self, total: int) -> None:
        """So much is to be done."""

    def advance(self, count: int) -> None:
        """So much more is done."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the user's own files are, and how much of them to take.

    Attributes:
      folder: with a file for each task.
      limit: items of each file at most; None: all.
      texts: files for the task `text`, in place of those in the folder.
      window: tokens that `text` reads before it begins fresh; None: whole documents.
    """

    folder: Path | None = None
    limit: int | None = None
    texts: tuple[Path, ...] = ()
    window: int | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """One thing that can be measured.

    Attributes:
      name: what the user calls it.
      files: names in the folder that it takes, the first that is there.
      format: what these files hold, for messages.
      measure: `(scorer, source, progress)` to figures.
    """

    name: str
    files: tuple[str, ...]
    format: str
    measure: Callable[[Scorer, Source, Progress], list[Measurement]]


def find(source: Source, task: str, files: tuple[str, ...], format: str) -> Path:
    """The first of `files` that is in the folder of `source`.

    Raises:
      ValueError: there is none; the message says which are looked for, and in which format.
    """
    wanted = f"{' or '.join(files)}: {format}"
    if source.folder is None:
        raise ValueError(f"task {task} reads a file of yours; give --data DIR with {wanted}")
    for name in files:
        if (source.folder / name).exists():
            return source.folder / name
    raise ValueError(f"task {task} finds no file in {source.folder}; put there {wanted}")


def first(items: list, limit: int | None, path: Path) -> list:
    """At most `limit` of `items`, which came from `path`.

    Raises:
      ValueError: there are none.
    """
    if not items:
        raise ValueError(f"{path} holds nothing to measure")
    return items[:limit]
