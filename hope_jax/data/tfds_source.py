"""Documents from a dataset that TFDS has prepared."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from hope_jax.data.documents import Document, split_documents
from hope_jax.data.sources import check_fraction


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
        check_fraction(validation)
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
