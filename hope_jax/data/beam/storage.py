"""Files wherever Beam reaches: disks, gs://, s3://, hdfs://.

What appears under its name is whole: it is written under `unfinished/` and then renamed. On a
disk renaming is atomic; on an object store the new object appears when it is complete.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

_UNFINISHED = "unfinished"


class Found(NamedTuple):
    """A file: its full name, its bytes, and when it was last changed (seconds)."""

    name: str
    size: int
    updated: int


def is_remote(path: str) -> bool:
    """Whether `path` is a URL."""
    return "://" in path


def find(pattern: str) -> list[Found]:
    """Files that match a glob, in the order of their names; `**` crosses folders.

    Raises:
      ValueError: no file system knows such a path.
      OSError: it cannot be listed.
    """
    try:
        (matched,) = FileSystems.match([pattern])
    except BeamIOError as error:
        raise OSError(f"{pattern} cannot be listed: {error}") from None
    return sorted(
        Found(entry.path, int(entry.size_in_bytes), int(entry.last_updated_in_seconds or 0))
        for entry in matched.metadata_list
    )


def open_file(name: str) -> BinaryIO:
    """Open for reading, as it is, also if it is packed."""
    return FileSystems.open(name, compression_type=CompressionTypes.UNCOMPRESSED)


@contextlib.contextmanager
def local_copy(name: str) -> Iterator[pathlib.Path]:
    """A file on this machine with the content of `name`: that file itself if it is local."""
    if not is_remote(name):
        yield pathlib.Path(name)
        return
    with tempfile.TemporaryDirectory(prefix="hope-") as folder:
        copy = pathlib.Path(folder) / "copy"
        with open_file(name) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield copy


class Folder:
    """The folder that is prepared.

    Args:
      path: absolute, or a URL.
    """

    def __init__(self, path: str):
        self.path = path

    def __str__(self) -> str:
        return self.path

    def name(self, *parts: str) -> str:
        """Full name of a file in the folder."""
        return FileSystems.join(self.path, *parts)

    def find(self, pattern: str) -> dict[str, int]:
        """Sizes of the files that match, by their names relative to the folder."""
        start = len(self.path.rstrip("/")) + 1
        return {
            entry.name[start:]: entry.size
            for entry in find(glob.escape(self.path) + "/" + pattern)
        }

    def read(self, name: str) -> bytes | None:
        """Content of a small file; None if there is none."""
        full = self.name(name)
        if not FileSystems.exists(full):
            return None
        with open_file(full) as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Make or replace a small file."""
        with self.create(name) as path:
            path.write_bytes(data)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[pathlib.Path]:
        """Give a path on this machine; what is written there becomes `name` at the end.

        Nothing is left where the body raises.
        """
        unfinished = self.name(_UNFINISHED, uuid.uuid4().hex)
        with contextlib.ExitStack() as stack:
            if is_remote(self.path):
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="hope-"))
                path = pathlib.Path(scratch) / "new"
            else:
                path = pathlib.Path(unfinished)
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.callback(path.unlink, missing_ok=True)
            yield path
            if is_remote(self.path):
                with (
                    path.open("rb") as source,
                    FileSystems.create(
                        unfinished, compression_type=CompressionTypes.UNCOMPRESSED
                    ) as target,
                ):
                    shutil.copyfileobj(source, target, 1 << 20)
            else:
                pathlib.Path(self.name(name)).parent.mkdir(parents=True, exist_ok=True)
            FileSystems.rename([unfinished], [self.name(name)])

    def clear(self, *patterns: str) -> None:
        """Remove the files that match; folders that are then empty go too."""
        names = [self.name(name) for pattern in patterns for name in self.find(pattern)]
        if names:
            FileSystems.delete(names)
        if not is_remote(self.path):
            for parent, _, _ in os.walk(self.path, topdown=False):
                if parent != self.path:
                    with contextlib.suppress(OSError):  # it is not empty
                        os.rmdir(parent)

    def clear_unfinished(self) -> None:
        """Remove what a run left that was killed."""
        self.clear(f"{_UNFINISHED}/*")
