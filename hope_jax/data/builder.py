"""Token records as ArrayRecord datasets of TFDS, without TensorFlow.

TFDS holds what it writes in memory, and from 1 GB on asks TensorFlow for help. A long stream
is therefore written as several datasets of `PART` records, one after the other. Where several
workers write, each writes files of one dataset by itself (`write_shard`), and `describe_shards`
says what TFDS has to know of them.
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
from array_record.python.array_record_module import ArrayRecordWriter

from hope_jax.data.records import RECORD

PART = 50_000  # 205 million tokens; 435 MB with 16-bit tokens, 845 MB with 32-bit tokens
_NAME, _VERSION = "hope_tokens", "1.0.0"


def features(dtype: Any) -> tfds.features.FeaturesDict:
    """What a record is to TFDS."""
    tensor = tfds.features.Tensor
    return tfds.features.FeaturesDict(
        {
            "tokens": tensor(shape=(RECORD,), dtype=dtype, encoding="bytes"),
            "starts": tensor(shape=(RECORD // 8,), dtype=np.uint8, encoding="bytes"),
        }
    )


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
        return tfds.core.DatasetInfo(
            builder=self,
            description="A flat stream of token ids in records of fixed size.",
            features=features(self._dtype),
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


def write_shard(
    path: pathlib.Path, records: Iterable[dict[str, np.ndarray]], dtype: Any
) -> None:
    """Write one file of a dataset, record by record, as TFDS writes them.

    Equal records give equal files: the fields of a record are in a fixed order, which TFDS
    leaves open.

    Raises:
      OSError: it could not be written, e.g. the disk is full.
    """
    form = features(dtype)
    example = tfds.core.example_serializer.ExampleSerializer(form.get_serialized_info())
    try:
        writer = ArrayRecordWriter(str(path), "group_size:1")
        try:
            for record in records:
                made = example.get_tf_example(form.encode_example(record))
                writer.write(made.SerializeToString(deterministic=True))
        finally:
            writer.close()
    except RuntimeError as error:  # how the ArrayRecord writer reports the system's
        raise OSError(str(error)) from error


def shard_file(split: str, number: int, shards: int) -> str:
    """Where shard `number` of `shards` is, relative to the prepared folder."""
    name = f"{_NAME}-{split}.array_record-{number:05}-of-{shards:05}"
    return str(_part_folder(pathlib.Path(), split, 0) / _NAME / _VERSION / name)


def describe_shards(
    folder: pathlib.Path, split: str, records: Sequence[int], size: int, dtype: Any
) -> list[str]:
    """Make a dataset of shards: write its description into `folder`.

    Args:
      folder: the prepared folder, or one that stands for it.
      split: the split that the shards are.
      records: of each shard.
      size: bytes of all shards.
      dtype: type of the tokens.

    Returns:
      The files that were written, relative to `folder`.
    """
    part = _part_folder(folder, split, 0)
    home = part / _NAME / _VERSION
    home.mkdir(parents=True)
    info = HopeTokens(part, split, (), dtype).info
    template = tfds.core.ShardedFileTemplate(
        data_dir=home, dataset_name=_NAME, split=split, filetype_suffix="array_record"
    )
    described = tfds.core.SplitInfo(
        name=split, shard_lengths=list(records), num_bytes=size, filename_template=template
    )
    info.set_splits(tfds.core.splits.SplitDict([described]))
    info.write_to_directory(home)
    return sorted(str(path.relative_to(folder)) for path in home.iterdir())


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
