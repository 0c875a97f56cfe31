"""Many streams at once over one model, each for itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hope_jax.config.check import require
from hope_jax.data.tokenizers.protocol import check_ids
from hope_jax.inference.learning import Mode
from hope_jax.inference.reading import beginnings, encode
from hope_jax.inference.stream import STEPS, pieces
from hope_jax.streams.reservoir import Reservoir
from hope_jax.streams.rows import rows_of, tokens_of_chunk
from hope_jax.streams.stream import Stream


class ManyStreams:
    """Rows of streams that share slow weights and nothing else.

    All rows go through the model together; a row whose text is over waits. They begin where
    `stream` stands, and `row` gives one of them as a stream of its own. For a batch that fits
    in memory use fast weights of low rank (`cms.in_context.rank`).

    Args:
      stream: where all rows begin; it is not changed.
      count: rows.
    """

    def __init__(self, stream: Stream, count: int):
        require(count >= 1, f"{count} streams; use 1 or more")
        self._stream, self.count = stream.copy(), count
        self._rows = rows_of(self._stream)
        self.state = self._rows.repeat(stream.state, count)
        kept = stream.reservoir.arrays()
        self._reservoirs = [Reservoir.from_arrays(kept) for _ in range(count)]
        self._tokens_read = [stream.tokens_read] * count

    def read(self, texts: Sequence[str | bytes], *, learn: bool = True) -> list[np.ndarray]:
        """Every row reads its own text; returns their losses in nats per token.

        Raises:
          ValueError: not one text per row.
        """
        stream = self._stream
        encoded = [encode(stream.model, stream.base.tokenizer, text) for text in texts]
        return self.read_ids(encoded, learn=learn)

    def read_ids(self, rows: Sequence[np.ndarray], *, learn: bool = True) -> list[np.ndarray]:
        """The same of token ids, int32 `[T]` per row.

        Raises:
          ValueError: not one row of ids per stream, or ids that `Stream.read_ids` refuses;
            nothing has been read then.
        """
        stream = self._stream
        require(len(rows) == self.count, f"{len(rows)} texts for {self.count} streams")
        vocab = stream.base.tokenizer.vocab_size
        texts = [check_ids(ids, vocab).astype(np.int32) for ids in rows]
        there = beginnings(stream.model, stream.base.tokenizer, self.state)
        begins = [b if len(text) else b[:0] for b, text in zip(there, texts, strict=True)]
        rows = [np.concatenate(parts) for parts in zip(begins, texts, strict=True)]
        mode = Mode(True, learn, stream.limits)
        state = self._rows.open(self.state, max(map(len, rows)))
        losses: list[list[np.ndarray]] = [[] for _ in rows]
        places = np.zeros(self.count, int)
        lengths = np.asarray([len(ids) for ids in rows])
        while (places < lengths).any():
            state, taken, loss_BN = self._advance(state, rows, places, lengths, mode)
            for row, count in enumerate(taken):
                losses[row].append(loss_BN[row, :count])
            places += taken
        self.state = state
        for row, ids in enumerate(texts):
            self._tokens_read[row] += len(ids)
            if learn:
                self._reservoirs[row].add(ids)
            elif len(ids):
                self._reservoirs[row].cut()
        whole = [np.concatenate([*parts, np.zeros(0, np.float32)]) for parts in losses]
        return [loss_T[len(begin_T) :] for begin_T, loss_T in zip(begins, whole, strict=True)]

    def forget_context(self, below: int | None = None) -> None:
        """As of `Stream`, in all rows."""
        for reservoir in self._reservoirs:
            reservoir.cut()
        self.state = self._rows.forget(self.state, below)

    def row(self, number: int) -> Stream:
        """One row as a stream of its own, which can answer, sleep and be saved."""
        require(
            0 <= number < self.count, f"there is no row {number} among {self.count} streams"
        )
        stream = self._stream.copy()
        stream.state = self._rows.row(self.state, number)
        stream.tokens_read = self._tokens_read[number]
        stream.reservoir = Reservoir.from_arrays(self._reservoirs[number].arrays())
        return stream

    def _advance(self, state, rows, places, lengths, mode):
        """Some more tokens: a piece of every row that can take one, or single tokens."""
        stream = self._stream
        size = max(pieces(stream.model)) if stream.learns else min(pieces(stream.model))
        ready_R = lengths - places >= size
        if stream.learns:
            ready_R &= tokens_of_chunk(state) % size == 0
        if ready_R.any():
            take = lambda ids, at, ok: ids[at : at + size] if ok else np.zeros(size, np.int32)
            piece_RT = np.stack(list(map(take, rows, places, ready_R)))
            state, loss_RT = self._rows.read(state, piece_RT, mode, ready_R)
            return state, np.where(ready_R, size, 0), np.asarray(loss_RT)
        left_R = np.minimum(lengths - places, STEPS)
        if stream.learns:  # up to where a piece can be read
            filled_R = tokens_of_chunk(state) % size
            left_R = np.minimum(left_R, np.where(filled_R, size - filled_R, left_R))
        given_RN = np.zeros((self.count, STEPS), np.int32)
        for row, count in enumerate(left_R):
            given_RN[row, :count] = rows[row][places[row] : places[row] + count]
        state, loss_RN = self._rows.step(state, given_RN, mode, left_R)
        return state, left_R, np.asarray(loss_RN)
