"""The stored form of a token stream: fixed-size records, so that any window of it can be
read by position.

A split is one flat stream of tokens. Record r holds tokens [r * RECORD, (r + 1) * RECORD)
and one bit per token that says whether a document starts there; the last one is filled up
with zeros, and the manifest says how many tokens there are. A split that several workers wrote
is several such streams, its shards, one after the other; each begins with a new record.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from hope_jax.data.documents import Document, pieces
from hope_jax.data.tokenizers import Tokenizer

RECORD = 4096


def token_dtype(vocab_size: int) -> type[np.unsignedinteger]:
    """The smallest unsigned type, of 16 or 32 bits, that holds every id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def records_of(tokens: int) -> int:
    """Records that a stream of `tokens` fills."""
    return -(-tokens // RECORD)


def record_bytes(record: dict[str, np.ndarray]) -> bytes:
    """What the checksum of a stream is taken over."""
    return record["tokens"].tobytes() + record["starts"].tobytes()


@dataclasses.dataclass
class StreamStats:
    """What went into a split; filled while it is written."""

    tokens: int = 0
    bytes: int = 0
    documents: int = 0
    empty_documents: int = 0
    sha256: str = ""


def write_records(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    stats: StreamStats,
    advance: Callable[[int], None],
) -> Iterator[dict[str, np.ndarray]]:
    """Tokenize `documents` into records of `tokens` and packed `starts`.

    Args:
      documents: in stream order.
      tokenizer: its begin id opens every document and its end id closes it, where it has them.
      stats: counts, complete when the iterator is exhausted.
      advance: called with the number of bytes done.

    Raises:
      ValueError: text that the tokenizer cannot take, with the file and byte offset.
    """
    dtype = token_dtype(tokenizer.vocab_size)
    digest = hashlib.sha256()
    tokens = np.zeros(RECORD, dtype)
    starts = np.zeros(RECORD, bool)
    filled = 0

    def record() -> dict[str, np.ndarray]:
        made = {"tokens": tokens.copy(), "starts": np.packbits(starts, bitorder="little")}
        digest.update(record_bytes(made))
        return made

    for ids, first in _tokenize(documents, tokenizer, stats, advance):
        stats.tokens += len(ids)
        position = 0
        while position < len(ids):
            if first and position == 0:
                starts[filled] = True
            taken = min(RECORD - filled, len(ids) - position)
            tokens[filled : filled + taken] = ids[position : position + taken]
            filled, position = filled + taken, position + taken
            if filled == RECORD:
                yield record()
                tokens[:], starts[:], filled = 0, False, 0
    if filled:
        yield record()
    stats.sha256 = digest.hexdigest()


def _tokenize(documents, tokenizer, stats, advance) -> Iterator[tuple[np.ndarray, bool]]:
    """Ids piece by piece, and whether they open a document."""
    for document in documents:
        first = True
        for part in pieces(document):
            try:
                ids = tokenizer.encode(part.data[:])
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{part.name}: byte {part.offset + error.start} is not UTF-8, which the "
                    f"{tokenizer.name} tokenizer needs; mend the file or use --tokenizer byte"
                ) from None
            if len(ids):
                if first and tokenizer.begin_id is not None:
                    ids = np.concatenate([[tokenizer.begin_id], ids])
                yield ids, first
                first = False
            stats.bytes += len(part.data)
            advance(len(part.data))
        if tokenizer.end_id is not None:
            yield np.asarray([tokenizer.end_id]), first
            first = False
        stats.documents += not first
        stats.empty_documents += first


class TokenStream:
    """A split that is read by position.

    Args:
      source: random access to the records.
      shards: tokens of each shard, in order; a plain number is one shard.
    """

    def __init__(self, source: Sequence[dict[str, Any]], shards: int | Sequence[int]):
        shards = [shards] if isinstance(shards, int) else list(shards)
        self._tokens = np.cumsum([0, *shards])  # before each shard
        self._records = np.cumsum([0, *map(records_of, shards)])
        self.tokens = int(self._tokens[-1])
        self._shards = shards
        self._source = source
        # decoding a record costs far more than cutting a window from it, and a record holds
        # many windows; 4096 records are 35 MB of 16-bit tokens
        self._record = functools.lru_cache(maxsize=4096)(source.__getitem__)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [start, stop) as int32, and as bool which of them start a document."""
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"[{start}, {stop}) is not within {self.tokens} tokens")
        tokens, starts = [np.zeros(0, np.int32)], [np.zeros(0, bool)]
        while start < stop:
            shard = int(np.searchsorted(self._tokens, start, side="right")) - 1
            begun, end = self._tokens[shard : shard + 2]
            some = self._read(self._records[shard], start - begun, min(stop, end) - begun)
            tokens.append(some[0].astype(np.int32))
            starts.append(some[1].astype(bool))
            start = min(stop, end)
        return np.concatenate(tokens), np.concatenate(starts)

    def _read(self, begun: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [start, stop) of the shard whose first record is `begun`."""
        first, last = int(start) // RECORD, int(stop - 1) // RECORD
        records = [self._record(int(begun) + index) for index in range(first, last + 1)]
        here = slice(start - first * RECORD, stop - first * RECORD)
        tokens = np.concatenate([record["tokens"] for record in records])
        starts = np.concatenate([record["starts"] for record in records])
        return tokens[here], np.unpackbits(starts, bitorder="little")[here]

    def __reduce__(self):
        return TokenStream, (self._source, self._shards)  # reader processes cache on their own
