"""A TFDS builder that writes token records as ArrayRecord, without TensorFlow.

TFDS holds what it writes in memory, and from 1 GB on asks TensorFlow for help. A long stream
is therefore written as several datasets of `PART` records, one after the other.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hope_jax.data.records import RECORD

PART = 50_000  # 205 million tokens; 435 MB with 16-bit tokens, 845 MB with 32-bit tokens
_NAME, _VERSION = "hope_tokens", "1.0.0"


class HopeTokens(tfds.core.GeneratorBasedBuilder):
    """Flat token records with document starts; see `hope_jax.data.records`.

    Args:
      data_dir: folder to write into.
      split: name of the only split.
      records: in stream order.
      dtype: type of the tokens.
    """

    name = _NAME
    VERSION = tfds.core.Version(_VERSION)
    url_infos = None  # nothing is downloaded; TFDS would look for checksums beside this file

    def __init__(
        self,
        data_dir: pathlib.Path,
        split: str,
        records: Iterable[dict[str, np.ndarray]],
        dtype: Any,
    ):
        self._downloads = data_dir / "downloads"
        self._split, self._records, self._dtype = split, records, dtype
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        tensor = tfds.features.Tensor
        return tfds.core.DatasetInfo(
            builder=self,
            description="A flat stream of token ids in records of fixed size.",
            features=tfds.features.FeaturesDict(
                {
                    "tokens": tensor(shape=(RECORD,), dtype=self._dtype, encoding="bytes"),
                    "starts": tensor(shape=(RECORD // 8,), dtype=np.uint8, encoding="bytes"),
                }
            ),
            disable_shuffling=True,  # position in the file is position in the stream
        )

    def _split_generators(self, dl_manager):
        return {self._split: self._generate_examples()}

    def _generate_examples(self):
        yield from enumerate(self._records)

    def write(self) -> None:
        """Write all records.

        Raises:
          OSError: they could not be written, e.g. the disk is full.
        """
        config = tfds.download.DownloadConfig(
            compute_stats=tfds.download.ComputeStatsMode.SKIP, try_download_gcs=False
        )
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints; our caller reports
            try:
                self.download_and_prepare(download_config=config, download_dir=self._downloads)
            except RuntimeError as error:  # how the ArrayRecord writer reports the system's
                raise OSError(str(error)) from error
        shutil.rmtree(self._downloads, ignore_errors=True)  # made by TFDS, and empty


def write_parts(
    folder: pathlib.Path,
    split: str,
    records: Iterator[dict[str, np.ndarray]],
    dtype: Any,
    part: int = PART,
) -> None:
    """Write a stream of any length into `folder`, `part` records at a time."""
    for number in itertools.count():
        first = next(records, None)
        if first is None:
            return
        some = itertools.chain([first], itertools.islice(records, part - 1))
        HopeTokens(_part_folder(folder, split, number), split, some, dtype).write()


class Parts(Sequence):
    """Random access to the records of a split that `write_parts` wrote.

    Raises:
      ValueError: a part is missing or damaged, also when a record of it is read.
    """

    def __init__(self, folder: pathlib.Path, split: str, records: int, part: int = PART):
        self._records, self._part = records, part
        self._sources = [
            _open_part(_part_folder(folder, split, number), split)
            for number in range(-(-records // part))
        ]
        found = sum(map(len, self._sources))
        if found != records:
            raise ValueError(
                f"{folder} has {found} records of split {split!r}, its manifest says "
                f"{records}; copy or prepare it again"
            )

    def __len__(self) -> int:
        return self._records

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        number, within = divmod(index, self._part)
        try:
            return self._sources[number][within]
        except RuntimeError as error:  # a checksum or a file of ArrayRecord's
            raise ValueError(
                f"record {index} cannot be read ({error}); copy or prepare the data again"
            ) from None


def _part_folder(folder: pathlib.Path, split: str, number: int) -> pathlib.Path:
    return folder / f"{split}-{number:05}"


def _open_part(folder: pathlib.Path, split: str):
    try:
        return tfds.builder_from_directory(folder / _NAME / _VERSION).as_data_source(split)
    except Exception as error:  # several types, depending on what is missing
        raise ValueError(
            f"{folder} is missing or damaged ({error}); copy or prepare the data again"
        ) from None
