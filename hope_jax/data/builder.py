"""A TFDS builder that writes token records as ArrayRecord, without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hope_jax.data.records import RECORD

NAME = "hope_tokens"
VERSION = "1.0.0"


class HopeTokens(tfds.core.GeneratorBasedBuilder):
    """Flat token records with document starts; see `hope_jax.data.records`.

    Args:
      data_dir: folder to write into.
      splits: records of each split, in stream order.
      dtype: type of the tokens.
    """

    name = NAME
    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # nothing is downloaded; TFDS would look for checksums beside this file

    def __init__(
        self,
        data_dir: pathlib.Path,
        splits: Mapping[str, Iterable[dict[str, np.ndarray]]],
        dtype: Any,
    ):
        self._downloads = data_dir / "downloads"
        self._records = splits
        self._dtype = dtype
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
        return {name: enumerate(records) for name, records in self._records.items()}

    def _generate_examples(self):
        raise AssertionError("the splits are given as iterators")

    def write(self) -> None:
        """Write every split."""
        config = tfds.download.DownloadConfig(
            compute_stats=tfds.download.ComputeStatsMode.SKIP, try_download_gcs=False
        )
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints; our caller reports
            self.download_and_prepare(download_config=config, download_dir=self._downloads)
        shutil.rmtree(self._downloads, ignore_errors=True)  # made by TFDS, and empty


def read_records(folder: pathlib.Path, split: str):
    """Random access to the records of a split that `HopeTokens` wrote into `folder`."""
    return tfds.builder_from_directory(folder / NAME / VERSION).as_data_source(split)
