"""Where documents come from: the shipped corpus, text files, a prepared TFDS dataset.

A source has `describe()`, a JSON-able note for the manifest, `documents(split)`, an iterator
over one split, and `size(split)`, its number of bytes.
"""

from __future__ import annotations

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

    Raises:
      ValueError: a path does not exist, or no file is left.
    """

    def __init__(
        self,
        paths: Sequence[str | pathlib.Path],
        *,
        pattern: str = "*",
        separator: str | None = None,
        validation: float = 0.1,
    ):
        _check_fraction(validation)
        self._paths = [pathlib.Path(path) for path in paths]
        self._separator = separator.encode("utf-8") if separator is not None else None
        self._validation = validation
        self._files = [file for path in self._paths for file in _files(path, pattern)]
        if not self._files:
            raise ValueError(
                f"no file matches {pattern!r} under {', '.join(map(str, self._paths))}"
            )

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "text",
            "paths": [str(path) for path in self._paths],
            "files": len(self._files),
            "separator": self._separator and self._separator.decode("utf-8"),
        }

    def documents(self, split: str) -> Iterator[Document]:
        labelled = split_documents(self._all(), self.size(), self._validation)
        return (document for label, document in labelled if label == split)

    def size(self) -> int:
        return sum(file.stat().st_size for file in self._files)

    def _all(self) -> Iterator[Document]:
        for file in self._files:
            data = _read(file)
            if self._separator is None:
                yield Document(str(file), data)
            else:
                yield from _separate(Document(str(file), data), self._separator)


class TfdsSource:
    """A dataset that TFDS has prepared as ArrayRecord; TensorFlow is not needed.

    Args:
      folder: the prepared version, e.g. `~/tensorflow_datasets/lm1b/1.1.0`.
      feature: the feature that holds the text.
      split: TFDS split to train on, e.g. "train" or "train[:10%]".
      validation_split: TFDS split to hold out; None holds out the end of `split`.
      validation: fraction of bytes held out if there is no `validation_split`.

    Raises:
      ValueError: the folder is no prepared dataset, or has no such split or feature.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        *,
        feature: str = "text",
        split: str = "train",
        validation_split: str | None = None,
        validation: float = 0.1,
    ):
        import tensorflow_datasets as tfds

        _check_fraction(validation)
        try:
            self._builder = tfds.builder_from_directory(os.path.expanduser(folder))
        except Exception as error:  # several types, depending on what is missing
            raise ValueError(
                f"{folder} is not a prepared TFDS dataset; give the folder with "
                f"dataset_info.json ({error})"
            ) from None
        features = self._builder.info.features or {}
        if feature not in features:
            names = ", ".join(map(repr, sorted(features)))
            raise ValueError(f"{folder} has no feature {feature!r}; it has {names}")
        self._folder, self._feature = folder, feature
        self._splits = {"train": split, "validation": validation_split}
        self._validation = validation
        self._data = {
            name: self._open(spec) for name, spec in self._splits.items() if spec is not None
        }
        self._total = sum(len(d.data) for d in self._read("train"))

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "tfds",
            "name": self._builder.info.full_name,
            "feature": self._feature,
            "splits": self._splits,
        }

    def documents(self, split: str) -> Iterator[Document]:
        if self._splits["validation"] is not None:
            return self._read(split)
        labelled = split_documents(self._read("train"), self._total, self._validation)
        return (document for label, document in labelled if label == split)

    def size(self) -> int:
        if self._splits["validation"] is None:
            return self._total
        return self._total + sum(len(d.data) for d in self._read("validation"))

    def _open(self, spec: str):
        try:
            return self._builder.as_data_source(spec)
        except Exception as error:  # unknown split, or files that are not ArrayRecord
            raise ValueError(
                f"{self._folder} cannot be read as split {spec!r} (splits: "
                f"{', '.join(sorted(self._builder.info.splits))}); it must be prepared with "
                f"file_format='array_record' ({error})"
            ) from None

    def _read(self, split: str) -> Iterator[Document]:
        for index, example in enumerate(self._data[split]):
            value = example[self._feature]
            data = value.encode("utf-8") if isinstance(value, str) else value
            if not isinstance(data, bytes):
                raise ValueError(
                    f"feature {self._feature!r} of {self._folder} is {type(value).__name__}, "
                    "not text; choose another --feature"
                )
            yield Document(f"{self._folder} {self._splits[split]}[{index}]", data)


def _check_fraction(validation: float) -> None:
    if not 0 <= validation < 1:
        raise ValueError(
            f"validation fraction is {validation}; use at least 0 and less than 1, e.g. 0.1"
        )


def _files(path: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path} does not exist")
    return sorted(
        file
        for file in path.rglob(pattern)
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def _read(file: pathlib.Path) -> bytes | mmap.mmap:
    with file.open("rb") as opened:
        if os.fstat(opened.fileno()).st_size == 0:
            return b""
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


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
