"""Log probabilities of many rows of tokens, each read from a fresh state."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.config import ModelConfig
from hope_jax.config.check import require
from hope_jax.evaluation.batches import Unit, batches, cut
from hope_jax.evaluation.rows import Row, Score
from hope_jax.inference.learning import LearningState, Mode
from hope_jax.inference.stream import StreamState, fresh, map_rows, open_stream, read_scores
from hope_jax.layers.fast_weights import moving_levels
from hope_jax.models import LanguageModel, next_token_losses

SIZES = (512, 256, 128, 64)  # tokens per piece
SCORES = 2**26  # numbers of a piece's scores at most, rows x tokens x vocabulary: 256 MB
TOKENS = 2**17  # tokens of a batch at most, unless one item has more
_EVENTS = "write_events"  # what mixers call the count of their memory updates


class Scorer:
    """Scores rows, many at a time.

    Every row begins with fresh memories, so that no row changes another. Rows are padded at
    their ends, which no earlier token sees. They are read in pieces of a few sizes that hand
    the state on, so no row is ever cut short and few programs are compiled. What the rows of
    an item have in common before anything is scored is read once, and each goes on from there.

    Args:
      model: the model.
      params: its parameters.
      tokenizer: of the model.
      batch: rows read side by side at most.
      mode: what reading may change: the memories of the mixers, and the CMS where it learns
        within a text.
      sizes: tokens of the pieces that rows are read in, largest first, each a multiple of the
        next. A CMS that learns within a text is read in its own chunks.

    >>> from hope_jax.config import AttentionConfig, ModelConfig
    >>> from hope_jax.data import ByteTokenizer
    >>> from hope_jax.evaluation.rows import pair_row
    >>> from hope_jax.models import init_params
    >>> config = ModelConfig(dim=16, depth=1, mixer=AttentionConfig(heads=1))
    >>> params = init_params(config, jax.random.key(0))
    >>> scorer = Scorer(LanguageModel(config), params, ByteTokenizer())
    >>> row = pair_row(scorer.model, scorer.tokenizer, "To be or", " not")
    >>> [[score]] = scorer.score([[row]])
    >>> score.tokens, score.length, score.log_probability < 0
    (4, 12, True)
    """

    def __init__(
        self,
        model: LanguageModel,
        params: Any,
        tokenizer: Any,
        *,
        batch: int = 16,
        mode: Mode = Mode(),  # noqa: B008 - immutable
        sizes: Sequence[int] = SIZES,
    ):
        require(batch >= 1, f"a batch of {batch} rows; use 1 or more")
        self.model, self.params, self.tokenizer = model, params, tokenizer
        self.batch, self.mode = batch, mode
        how = model.config.cms.in_context
        most = max(SCORES // (batch * model.config.vocab_rows), sizes[-1])
        self._sizes = (how.chunk,) if how.on else tuple(s for s in sizes if s <= most)
        self._learns = how.on and mode.writes and mode.learns
        self._updates_per_token = _updates_per_token(model, params) if mode.writes else 0

    def score(
        self,
        items: Sequence[Sequence[Row]],
        on_rows: Callable[[int], None] = lambda count: None,
    ) -> list[list[Score]]:
        """Scores of the rows of every item.

        Args:
          items: rows by item. Those of one item share what they begin with.
          on_rows: told after every batch how many rows are done.
        """
        scores: list[list[Any]] = [[None] * len(rows) for rows in items]
        for units in batches(items, self.batch, self._sizes[-1], TOKENS):
            rows = [items[unit.item][row] for unit in units for row in unit.rows]
            found = iter(self._score_batch(units, rows))
            for unit in units:
                for row in unit.rows:
                    scores[unit.item][row] = next(found)
            on_rows(len(rows))
        return scores

    def score_stream(self, parts: Iterable[np.ndarray], before: Sequence[int] = ()) -> Score:
        """Score of one long text that comes in parts, in memory that does not grow with it.

        Args:
          parts: token ids of the text, one part after the other.
          before: ids that are read first and not scored.

        Raises:
          ValueError: there is no token to score.
        """
        size, held = self._sizes[0], np.asarray(before, np.int32)
        stream, skipped = fresh(self.model, self.params), len(held)
        log_probability, greedy, length, refused = 0.0, True, 0, 0

        def read(ids_T):
            nonlocal stream, log_probability, greedy, length, refused
            stream = open_stream(self.model, self.params, len(ids_T) + size, stream)
            stream, nats_BT, greedy_BT, refused_B = self._read(stream, ids_T[None])
            first = max(skipped - length, 0)
            log_probability += _log_probability(nats_BT[0, first:])
            greedy &= bool(greedy_BT[0, first:].all())
            length, refused = length + len(ids_T), int(refused_B[0])

        for part in parts:
            held = np.concatenate([held, np.asarray(part, np.int32)])
            whole = len(held) // size * size
            if whole:
                read(held[:whole])
                held = held[whole:]
        if len(held):
            read(held)
        require(length > skipped, "the text is empty; nothing is to be scored")
        updates = length * self._updates_per_token, self._level_updates(length, refused)
        return Score(log_probability, greedy, length - skipped, length, *updates)

    def _score_batch(self, units: list[Unit], rows: list[Row]) -> list[Score]:
        width = min(self.batch, _power_of_two(len(rows)))
        shared = min(unit.shared for unit in units)
        longest = max(len(row.ids_T) for row in rows) - shared
        room = shared + sum(cut(longest, self._sizes))
        if shared:
            first = [sum(len(u.rows) for u in units[:i]) for i in range(len(units))]
            heads_BT = _padded([rows[i].ids_T[:shared] for i in first], shared)
            heads_BT = _to_rows(heads_BT, _power_of_two(len(units)))
            stream = open_stream(
                self.model, self.params, room, fresh(self.model, self.params, len(heads_BT))
            )
            stream, *_ = self._read(stream, heads_BT)
            which = [i for i, unit in enumerate(units) for _ in unit.rows]
            which_B = jnp.asarray(which + [0] * (width - len(which)))
            stream = _rows_of(stream, which_B)
        else:
            stream = open_stream(
                self.model, self.params, room, fresh(self.model, self.params, width)
            )
        tails_BT = _to_rows(_padded([row.ids_T[shared:] for row in rows], longest), width)
        lengths_B = np.asarray([len(row.ids_T) - shared for row in rows])
        _, nats_BT, greedy_BT, refused_B = self._read(stream, tails_BT, lengths_B)
        return [
            self._of_row(row, shared, nats_BT[i], greedy_BT[i], int(refused_B[i]))
            for i, row in enumerate(rows)
        ]

    def _of_row(self, row: Row, shared: int, nats_T, greedy_T, refused: int) -> Score:
        scored, length = slice(row.start - shared, len(row.ids_T) - shared), len(row.ids_T)
        return Score(
            log_probability=_log_probability(nats_T[scored]),
            greedy=bool(greedy_T[scored].all()),
            tokens=length - row.start,
            length=length,
            memory_updates=length * self._updates_per_token,
            level_updates=self._level_updates(length, refused),
        )

    def _read(self, stream: StreamState, ids_BT: np.ndarray, lengths_B: Any = None):
        """Read `ids_BT` in pieces, padded at the end; consumes `stream`.

        Returns the stream (useless after padding), losses and whether each token was the
        likeliest, `[B, T]`, and how many updates had been refused when the row's last token was
        read, `[B]`.
        """
        batch, time = ids_BT.shape
        lengths_B = np.full(batch, time) if lengths_B is None else lengths_B
        pieces, start, parts, refused = cut(time, self._sizes), 0, [], []
        ids_BT = _padded(ids_BT, sum(pieces))
        for size in pieces:
            piece_BT = jnp.asarray(ids_BT[:, start : start + size])
            stream, *read = _score_piece(self.model, self.params, stream, piece_BT, self.mode)
            parts.append(read)
            start += size
        nats, greedy, refused = zip(*jax.device_get(parts), strict=True)
        # padding closes chunks too: of a row counts the piece that its last token is in
        ends = np.cumsum(pieces)
        last_B = np.searchsorted(ends, lengths_B)
        refused_B = np.stack(refused)[last_B, np.arange(len(lengths_B))]
        whole = lambda parts: np.concatenate(parts, axis=1)[:, :time]
        return stream, whole(nats), whole(greedy), refused_B

    def _level_updates(self, length: int, refused: int) -> int:
        """Steps of all levels within a text: a chunk teaches when the token after it comes."""
        if not self._learns:
            return 0
        return level_updates(self.model.config, length, refused)


def level_updates(config: ModelConfig, length: int, refused: int = 0) -> int:
    """Steps of the CMS levels that learn within a text of `length` tokens.

    A chunk teaches when the token after it comes; `refused` of them did not.

    >>> from hope_jax.config import CMSConfig, InContextConfig
    >>> how = InContextConfig(chunks=(4, 8))
    >>> level_updates(ModelConfig(cms=CMSConfig(periods=(1, 2), in_context=how)), 17)
    6
    """
    if not config.cms.in_context.on:
        return 0
    levels = moving_levels(config)
    chunk = min(levels.values())
    ticks = (length - 1) // chunk - refused
    return sum(ticks // (tokens // chunk) for tokens in levels.values())


@functools.partial(jax.jit, static_argnames=("model", "mode"), donate_argnames=("stream",))
def _score_piece(
    model: LanguageModel, params: Any, stream: StreamState, ids_BT: jax.Array, mode: Mode
) -> tuple[StreamState, jax.Array, jax.Array, jax.Array]:
    """The stream, losses in nats, whether each token was the likeliest, and refusals so far."""
    stream, expected_BTW = read_scores(model, params, stream, ids_BT, mode)
    nats_BT = next_token_losses(expected_BTW, ids_BT)
    greedy_BT = expected_BTW.argmax(axis=-1) == ids_BT
    refused_B = jnp.zeros(len(ids_BT), jnp.int32)
    if isinstance(stream.state, LearningState):
        refused_B = stream.state.refused_B
    return stream, nats_BT, greedy_BT, refused_B


@jax.jit
def _rows_of(stream: StreamState, which_B: jax.Array) -> StreamState:
    return map_rows(stream, lambda x, axis: jnp.take(x, which_B, axis=axis))


def _updates_per_token(model: LanguageModel, params: Any) -> int:
    """Memory updates of all layers for a token: mixers write once for each, or not at all."""
    ids_BT = jnp.zeros((1, 1), jnp.int32)
    sow = lambda params: model.apply({"params": params}, ids_BT, mutable=["stats"])[1]
    stats = jax.jit(sow)(params).get("stats", {})
    counts = [
        int(value.sum())
        for path, value in jax.tree_util.tree_leaves_with_path(stats)
        if any(getattr(key, "key", None) == _EVENTS for key in path)
    ]
    return sum(counts)


def _log_probability(nats_T: np.ndarray) -> float:
    nats = float(nats_T.sum(dtype=np.float64))
    require(
        not np.isnan(nats), "the model's scores are not numbers (NaN): its training went astray"
    )
    return -nats


def _padded(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    """`[B, length]` with zeros where a row is over."""
    ids_BT = np.zeros((len(rows), length), np.int32)
    for row, ids_T in enumerate(rows):
        ids_BT[row, : len(ids_T)] = ids_T
    return ids_BT


def _to_rows(ids_BT: np.ndarray, count: int) -> np.ndarray:
    return np.pad(ids_BT, ((0, count - len(ids_BT)), (0, 0)))


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()
