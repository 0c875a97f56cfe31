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
from hope_jax.data.lines import (
    READ_ERRORS,
    json_documents,
    plain,
    read_lines,
    separated_documents,
    unreadable,
)


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
    """Text files: each is a document, or several with a separator line or as JSON lines.

    Args:
      paths: files and folders; folders are read recursively in name order, without hidden
        files.
      pattern: which files of a folder, e.g. "*.txt".
      separator: a line that ends one document and starts the next; it is not kept.
      jsonl: every line is a JSON object whose field of this name is a document; files that
        end in .gz are unpacked.
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
        jsonl: str | None = None,
        validation: float = 0.1,
        validation_paths: Sequence[str | pathlib.Path] = (),
    ):
        check_fraction(validation)
        check_layout(separator, jsonl)
        self._paths = {"train": list(paths), "validation": list(validation_paths)}
        self._files = {
            split: find_files(some, pattern) for split, some in self._paths.items() if some
        }
        self._separator, self._jsonl = separator, jsonl
        self._validation = validation

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "text",
            "paths": {split: list(map(str, some)) for split, some in self._paths.items()},
            "files": sum(map(len, self._files.values())),
            "separator": self._separator,
            **({"jsonl": self._jsonl} if self._jsonl is not None else {}),
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
        if self._separator is None and self._jsonl is None:
            return sum(file.stat().st_size for some in self._files.values() for file in some)
        return sum(len(d.data) for split in self._files for d in self._read(split))

    def _read(self, split: str) -> Iterator[Document]:
        for file in self._files[split]:
            if self._separator is None and self._jsonl is None:
                yield Document(str(file), content(file))
            else:
                yield from self._parts(file)

    def _parts(self, file: pathlib.Path) -> Iterator[Document]:
        try:
            with file.open("rb") as opened:
                if self._jsonl is not None:
                    lines = read_lines(plain(opened, str(file)))
                    yield from json_documents(lines, str(file), self._jsonl)
                else:
                    separator = self._separator.encode("utf-8")
                    yield from separated_documents(read_lines(opened), str(file), separator)
        except READ_ERRORS as error:
            raise unreadable(str(file), error) from None


def check_layout(separator: str | None, jsonl: str | None) -> None:
    """Raise `ValueError` where files are to be cut into documents in two ways at once."""
    if separator is not None and jsonl is not None:
        raise ValueError("--separator and --jsonl exclude each other")


def check_fraction(validation: float) -> None:
    """Raise `ValueError` unless a part of the text is left to train on."""
    if not 0 <= validation < 1:
        raise ValueError(
            f"validation fraction is {validation}; use at least 0 and less than 1, e.g. 0.1"
        )


def find_files(paths: Sequence[str | pathlib.Path], pattern: str) -> list[pathlib.Path]:
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


def content(file: pathlib.Path) -> bytes | mmap.mmap:
    """A whole file, of which only what is looked at is in memory.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            if os.fstat(opened.fileno()).st_size == 0:
                return b""
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise unreadable(str(file), error) from None
