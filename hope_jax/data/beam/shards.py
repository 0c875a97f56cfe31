"""One shard, by one worker: read its documents, write its records, say what they are."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Iterator

from hope_jax.data.beam import storage
from hope_jax.data.beam.plan import Piece, Plan, Shard
from hope_jax.data.builder import write_shard
from hope_jax.data.documents import Document
from hope_jax.data.lines import (
    READ_ERRORS,
    json_documents,
    plain,
    read_lines,
    separated_documents,
    separator_start,
    unreadable,
)
from hope_jax.data.manifest import ShardInfo
from hope_jax.data.records import StreamStats, token_dtype, write_records
from hope_jax.data.sources import content
from hope_jax.data.tokenizers import Tokenizer, load_tokenizer, tokenizer_files
from hope_jax.data.verify import file_sha256


class ShardWriter:
    """Makes shards of a folder that has its plan and tokenizer."""

    def __init__(self, folder: storage.Folder):
        self._folder = folder
        self._plan = Plan.read(folder)
        self._shards = self._plan.shards()
        self._tokenizer = read_tokenizer(folder)

    def write(self, index: int) -> ShardInfo:
        """Make shard `index` of the plan, unless it is there and undamaged.

        Raises:
          ValueError: its text cannot be read, or the tokenizer refuses it.
        """
        shard, tokenizer = self._shards[index], self._tokenizer
        done = read_shard(self._folder, shard, tokenizer.fingerprint)
        if done is not None and self._is_whole(done):
            return done
        stats = StreamStats()
        with self._folder.create(shard.file) as path:
            documents = read_documents(self._plan, shard)
            records = write_records(documents, tokenizer, stats, lambda count: None)
            write_shard(path, records, token_dtype(tokenizer.vocab_size))
            size, checksum = path.stat().st_size, file_sha256(path)
        info = ShardInfo(
            **dataclasses.asdict(stats),
            file=shard.file,
            file_bytes=size,
            file_sha256=checksum,
        )
        data = dataclasses.asdict(info) | {"fingerprint": tokenizer.fingerprint}
        self._folder.write(shard.manifest, (json.dumps(data, indent=1) + "\n").encode())
        return info

    def _is_whole(self, info: ShardInfo) -> bool:
        if self._folder.find(info.file) != {info.file: info.file_bytes}:
            return False
        with storage.local_copy(self._folder.name(info.file)) as path:
            return file_sha256(path) == info.file_sha256


def read_shard(folder: storage.Folder, shard: Shard, fingerprint: str) -> ShardInfo | None:
    """What a finished shard says of itself; None if it is not finished, or is damaged or of
    another tokenizer."""
    data = folder.read(shard.manifest)
    try:
        fields = json.loads(data or b"")
        return ShardInfo(**fields) if fields.pop("fingerprint") == fingerprint else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def read_tokenizer(folder: storage.Folder) -> Tokenizer | None:
    """The tokenizer that is saved in `folder`; None if there is none."""
    with tempfile.TemporaryDirectory(prefix="hope-") as local:
        found = False
        for name in tokenizer_files():
            data = folder.read(name)
            if data is not None:
                (pathlib.Path(local) / name).write_bytes(data)
                found = True
        return load_tokenizer(local) if found else None


def read_documents(plan: Plan, shard: Shard) -> Iterator[Document]:
    """Documents of a shard, in order.

    A part of all documents is held out by a hash of their text: the same text is always on
    the same side, wherever it stands and whatever else there is.
    """
    hashed = "validation" not in plan.files and plan.validation > 0
    limit = int(plan.validation * 2**64)
    for piece in shard.pieces:
        for document in _read(plan, piece):
            if hashed:
                digest = hashlib.sha256(document.data).digest()
                held_out = int.from_bytes(digest[:8], "little") < limit
                if held_out != (shard.split == "validation"):
                    continue
            yield document


def _read(plan: Plan, piece: Piece) -> Iterator[Document]:
    by_lines = plan.separator is not None or plan.jsonl is not None
    with contextlib.ExitStack() as stack:
        try:
            if not by_lines:
                path = stack.enter_context(storage.local_copy(piece.file))
                yield Document(piece.file, content(path))
                return
            file = stack.enter_context(storage.open_file(piece.file))
            if plan.jsonl is not None:
                lines = read_lines(plain(file, piece.file), piece.start)
                yield from json_documents(lines, piece.file, plan.jsonl, piece.stop)
            else:
                separator = plan.separator.encode("utf-8")
                yield from separated_documents(
                    read_lines(file, separator_start(piece.start, separator)),
                    piece.file,
                    separator,
                    piece.start,
                    piece.stop,
                )
        except READ_ERRORS as error:
            raise unreadable(piece.file, error) from None
