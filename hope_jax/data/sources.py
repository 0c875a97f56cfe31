"""Where documents come from: the shipped corpus and text files.

A dataset that TFDS has prepared is a source too; see `hope_jax.data.tfds_source`.
"""

from __future__ import annotations

import functools
import mmap
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from hope_jax.data import corpus
from hope_jax.data.documents import Document, split_documents


class Source(Protocol):
    """Documents of two splits."""

    def describe(self) -> dict[str, Any]:
        """What the text is, for the manifest."""

    def documents(self, split: str) -> Iterator[Document]:
        """Documents of "train" or "validation", the same at every call."""

    def size(self) -> int:
        """Bytes of both splits together, for progress."""


class CorpusSource:
    """The plays that ship with the package."""

    def describe(self) -> dict[str, Any]:
        return {"kind": "corpus", "name": corpus.NAME, "sha256": corpus.checksum()}

    def documents(self, split: str) -> Iterator[Document]:
        return iter(corpus.documents(split))

    def size(self) -> int:
        return sum(len(d.data) for s in ("train", "validation") for d in corpus.documents(s))


class TextSource:
    """Text files: each is a document, or several with a separator line.

    Args:
      paths: files and folders; folders are read recursively in name order, without hidden
        files.
      pattern: which files of a folder, e.g. "*.txt".
      separator: a line that ends one document and starts the next; it is not kept.
      validation: fraction of bytes, from the end, that is held out.
      validation_paths: hold out these files and folders instead.

    Raises:
      ValueError: a path does not exist, or no file is left, or (while documents are read) a
        file cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[str | pathlib.Path],
        *,
        pattern: str = "*",
        separator: str | None = None,
        validation: float = 0.1,
        validation_paths: Sequence[str | pathlib.Path] = (),
    ):
        check_fraction(validation)
        self._paths = {"train": list(paths), "validation": list(validation_paths)}
        self._files = {
            split: _files(some, pattern) for split, some in self._paths.items() if some
        }
        self._separator = separator
        self._validation = validation

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "text",
            "paths": {split: list(map(str, some)) for split, some in self._paths.items()},
            "files": sum(map(len, self._files.values())),
            "separator": self._separator,
        }

    def documents(self, split: str) -> Iterator[Document]:
        if "validation" in self._files:
            return self._read(split)
        labelled = split_documents(self._read("train"), self.size(), self._validation)
        return (document for label, document in labelled if label == split)

    def size(self) -> int:
        return self._size

    @functools.cached_property
    def _size(self) -> int:
        if self._separator is None:
            return sum(file.stat().st_size for some in self._files.values() for file in some)
        return sum(len(d.data) for split in self._files for d in self._read(split))

    def _read(self, split: str) -> Iterator[Document]:
        for file in self._files[split]:
            whole = Document(str(file), _content(file))
            if self._separator is None:
                yield whole
            else:
                yield from _separate(whole, self._separator.encode("utf-8"))


def check_fraction(validation: float) -> None:
    """Raise `ValueError` unless a part of the text is left to train on."""
    if not 0 <= validation < 1:
        raise ValueError(
            f"validation fraction is {validation}; use at least 0 and less than 1, e.g. 0.1"
        )


def _files(paths: Sequence[str | pathlib.Path], pattern: str) -> list[pathlib.Path]:
    """The files of `paths` in order."""
    files = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            files += sorted(
                file
                for file in path.rglob(pattern)
                if file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
        elif path.is_file():
            files.append(path)
        else:
            raise ValueError(f"{path} does not exist")
    if not files:
        raise ValueError(f"no file matches {pattern!r} under {', '.join(map(str, paths))}")
    return files


def _content(file: pathlib.Path) -> bytes | mmap.mmap:
    try:
        with file.open("rb") as opened:
            if os.fstat(opened.fileno()).st_size == 0:
                return b""
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:  # not the fault of the folder that is being written
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from None


def _separate(document: Document, separator: bytes) -> Iterator[Document]:
    """Cut at lines that are exactly `separator` (LF or CRLF)."""
    data, start, line = document.data, 0, 0
    while line < len(data):
        line_end = data.find(b"\n", line)
        following = len(data) if line_end < 0 else line_end + 1
        if data[line:following].rstrip(b"\r\n") == separator:
            yield document.slice(start, line)
            start = following
        line = following
    yield document.slice(start)
