"""Whether prepared data is what its manifest says: sizes at a start, checksums on demand."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence

from hope_jax.data.manifest import PLAN_FILE, Manifest, ShardInfo, SplitInfo
from hope_jax.data.records import record_bytes
from hope_jax.data.tokenizers import load_tokenizer

_SHOWN = 5  # damaged files that a message names


def check_sizes(folder: pathlib.Path, shards: Sequence[ShardInfo]) -> None:
    """Compare the files of `shards` with what was written, by size; reads no file.

    Raises:
      ValueError: some are missing or have another size; the message names them.
    """
    found: dict[pathlib.Path, dict[str, int]] = {}
    wrong = []
    for shard in shards:
        path = folder / shard.file
        if path.parent not in found:  # one listing, not a call per file: mounts are slow
            found[path.parent] = _sizes(path.parent)
        size = found[path.parent].get(path.name)
        if size is None:
            wrong.append(f"{path} is missing")
        elif size != shard.file_bytes:
            wrong.append(f"{path} has {size} bytes instead of {shard.file_bytes}")
    _refuse(folder, wrong)


def size_on_disk(manifest: Manifest) -> int:
    """Bytes that `verify` reads, for progress."""
    return sum(_split_size(manifest, info) for info in manifest.splits.values())


def verify(folder: pathlib.Path, advance: Callable[[int], None] = lambda count: None) -> None:
    """Read all of a prepared folder and compare its checksums with the manifest.

    Args:
      folder: the prepared folder.
      advance: called with the number of bytes done.

    Raises:
      ValueError: there is no manifest, or files are missing or damaged; the message names
        them.
    """
    from hope_jax.data.builder import Parts  # TensorFlow Datasets

    manifest = Manifest.read(folder)
    found = load_tokenizer(folder).fingerprint
    if found != manifest.fingerprint:
        _refuse(folder, [f"the tokenizer is {found} instead of {manifest.fingerprint}"])
    wrong: list[str] = []
    for split, info in manifest.splits.items():
        if info.shards:
            check_sizes(folder, info.shards)
            wrong += _damaged(folder, info.shards, advance)
            continue
        digest = hashlib.sha256()
        records = Parts(folder, split, info.records, manifest.part)
        for index in range(len(records)):
            data = record_bytes(records[index])
            digest.update(data)
            advance(len(data))
        if digest.hexdigest() != info.sha256:
            wrong.append(f"the records of split {split!r} do not have the checksum")
    _refuse(folder, wrong)


def file_sha256(
    path: str | pathlib.Path, advance: Callable[[int], None] = lambda count: None
) -> str:
    """Checksum of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
            advance(len(data))
    return digest.hexdigest()


def _damaged(folder, shards, advance) -> list[str]:
    def check(shard: ShardInfo) -> str | None:
        try:
            same = file_sha256(folder / shard.file, advance) == shard.file_sha256
        except OSError as error:
            return f"{folder / shard.file} cannot be read ({error.strerror or error})"
        return None if same else f"{folder / shard.file} does not have the checksum"

    # hashing leaves the interpreter to others, so threads share the work
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [wrong for wrong in pool.map(check, shards) if wrong is not None]


def _split_size(manifest: Manifest, info: SplitInfo) -> int:
    if info.shards:
        return sum(shard.file_bytes for shard in info.shards)
    width = {"uint16": 2, "uint32": 4}[manifest.dtype]
    return info.records * (manifest.record * width + manifest.record // 8)


def _sizes(folder: pathlib.Path) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}
    except OSError:
        return {}


def _refuse(folder: pathlib.Path, wrong: list[str]) -> None:
    if not wrong:
        return
    more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    remedy = "copy the folder again, or prepare the text again"
    if (folder / PLAN_FILE).exists():
        remedy = (
            "copy them again, or run the same hope prepare --beam command again: it makes "
            "damaged shards anew and keeps the others"
        )
    raise ValueError(
        f"{folder} is not what its manifest says:\n  "
        + "\n  ".join(wrong[:_SHOWN] + more)
        + f"\n{remedy}"
    )
