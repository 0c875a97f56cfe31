"""Many streams at once over one model, each for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.config.check import require
from hope_jax.inference.learning import Mode
from hope_jax.inference.reading import encode
from hope_jax.inference.stream import (
    STEPS,
    StreamState,
    forget_context,
    fresh,
    layers_apart,
    layers_together,
    map_rows,
    open_stream,
    pieces,
    read_piece,
    step_tokens,
)
from hope_jax.models import LanguageModel
from hope_jax.streams.reservoir import Reservoir
from hope_jax.streams.stream import Stream


class ManyStreams:
    """Rows of streams that share slow weights and nothing else.

    All rows go through the model together; a row whose text is over waits. They begin where
    `stream` stands, and `row` gives one of them as a stream of its own. For a batch that fits
    in memory use fast weights of low rank (`cms.in_context.rank`). Mixers that keep one place
    in their chunk for all rows, the self-modifying one among them, take texts of equal length.

    Args:
      stream: where all rows begin; it is not changed.
      count: rows.
    """

    def __init__(self, stream: Stream, count: int):
        require(count >= 1, f"{count} streams; use 1 or more")
        self._stream, self.count = stream.copy(), count
        self.state = _repeated(stream.state, count)
        self._in_step = _keeps_one_place(stream.model, stream.params)
        self._reservoirs = [stream.copy().reservoir for _ in range(count)]
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
        """The same of token ids, int32 `[T]` per row."""
        stream = self._stream
        require(len(rows) == self.count, f"{len(rows)} texts for {self.count} streams")
        longest = max(map(len, rows))
        require(
            not self._in_step or all(len(ids) == longest for ids in rows),
            f"the mixer {stream.model.config.mixer.type!r} keeps one place in its chunk for "
            "all rows, so texts have to be of equal length: these have "
            f"{', '.join(str(len(ids)) for ids in rows)} tokens",
        )
        mode = Mode(True, learn, stream.limits)
        state = open_stream(stream.model, stream.params, longest, self.state)
        losses: list[list[np.ndarray]] = [[] for _ in rows]
        places = np.zeros(self.count, int)
        lengths = np.asarray([len(ids) for ids in rows])
        while (places < lengths).any():
            state, taken, loss_BN = self._advance(state, rows, places, lengths, mode)
            for row, count in enumerate(taken):
                losses[row].append(loss_BN[row, :count])
            places += taken
        self.state = state
        for row, ids in enumerate(rows):
            self._tokens_read[row] += len(ids)
            if learn:
                self._reservoirs[row].add(ids)
            else:
                self._reservoirs[row].cut()
        return [np.concatenate([*parts, np.zeros(0, np.float32)]) for parts in losses]

    def forget_context(self, below: int | None = None) -> None:
        """As of `Stream`, in all rows."""
        stream = self._stream
        for reservoir in self._reservoirs:
            reservoir.cut()
        self.state = forget_context(
            stream.model, stream.params, self.state, stream.limits, below
        )

    def row(self, number: int) -> Stream:
        """One row as a stream of its own, which can answer, sleep and be saved."""
        require(
            0 <= number < self.count, f"there is no row {number} among {self.count} streams"
        )
        stream = self._stream.copy()
        stream.state = _row(self.state, number)
        stream.tokens_read = self._tokens_read[number]
        stream.reservoir = Reservoir.from_arrays(self._reservoirs[number].arrays())
        return stream

    def _advance(self, state, rows, places, lengths, mode):
        """Some more tokens: a piece of every row that can take one, or single tokens."""
        stream = self._stream
        size = max(pieces(stream.model)) if stream.learns else min(pieces(stream.model))
        ready = lengths - places >= size
        if stream.learns:
            ready &= np.asarray(state.state.count_B) % size == 0
        if ready.any():
            take = lambda ids, at, ok: ids[at : at + size] if ok else np.zeros(size, np.int32)
            piece_BT = np.stack(list(map(take, rows, places, ready)))
            state, loss_BT = read_piece(
                stream.model, stream.params, state, piece_BT, mode, jnp.asarray(ready)
            )
            return state, np.where(ready, size, 0), np.asarray(loss_BT)
        left = np.minimum(lengths - places, STEPS)
        if stream.learns:  # up to where a piece can be read
            filled = np.asarray(state.state.count_B) % size
            left = np.minimum(left, np.where(filled, size - filled, left))
        given_BN = np.zeros((self.count, STEPS), np.int32)
        for row, count in enumerate(left):
            given_BN[row, :count] = rows[row][places[row] : places[row] + count]
        steps = step_tokens(
            stream.model,
            stream.apart,
            layers_apart(stream.model, state),
            jnp.asarray(given_BN),
            STEPS,
            int(left.max()),
            jax.random.split(jax.random.key(0), self.count),
            vocab=stream.base.tokenizer.vocab_size,
            mode=mode,
            length_B=jnp.asarray(left),
        )
        return layers_together(steps.stream), left, np.asarray(steps.loss_BN)


def _keeps_one_place(model: LanguageModel, params: Any) -> bool:
    """Whether some array of the state is the same for all rows."""
    shapes = [
        [x.shape for x in jax.tree.leaves(jax.eval_shape(lambda n=n: fresh(model, params, n)))]
        for n in (1, 2)
    ]
    return any(one == two for one, two in zip(*shapes, strict=True))


def _repeated(state: StreamState, count: int) -> StreamState:
    """A stream of one row as so many."""
    return map_rows(state, lambda x, axis: jnp.repeat(x, count, axis=axis))


def _row(state: StreamState, number: int) -> StreamState:
    """One row of many."""
    return map_rows(state, lambda x, axis: jax.lax.index_in_dim(x, number, axis))
