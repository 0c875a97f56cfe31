"""A stream: a trained model that goes on learning from what it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.checkpoint.load import Loaded, load
from hope_jax.config import ModelConfig
from hope_jax.config.check import require
from hope_jax.data.tokenizers.protocol import check_ids
from hope_jax.inference.apart import params_apart
from hope_jax.inference.generate import write
from hope_jax.inference.learning import Mode
from hope_jax.inference.limits import Limits
from hope_jax.inference.reading import beginning, encode
from hope_jax.inference.sampling import sampling
from hope_jax.inference.stream import (
    StreamState,
    forget_context,
    fresh,
    open_stream,
    read_ids,
    settle_stream,
)
from hope_jax.inference.text import up_to
from hope_jax.models import LanguageModel
from hope_jax.models.in_context import with_slow_weights
from hope_jax.streams import storage
from hope_jax.streams.changes import Change, level_changes
from hope_jax.streams.levels import learning_config
from hope_jax.streams.reservoir import Reservoir
from hope_jax.streams.sleep import Sleep, SleepReport, consolidate


@dataclasses.dataclass(frozen=True)
class Surprise:
    """How unexpected each token was.

    Attributes:
      pieces: the tokens as text; bytes that are no text show as U+FFFD.
      loss_T: float32, nats per token, given all that the stream knew when it came.
    """

    pieces: list[str]
    loss_T: np.ndarray

    @property
    def mean(self) -> float:
        """Nats per token; NaN where nothing was read."""
        return float(self.loss_T.mean()) if self.loss_T.size else float("nan")


class Stream:
    """A model that reads, answers, forgets its context, sleeps, and is kept.

    What it reads changes three things: the fast state of its mixers, which is its context;
    the fast weights of the CMS levels that learn; and, in sleep, slow weights. No text is kept
    for answering. Sleep may read again what a bounded `reservoir` holds; without one, a saved
    stream holds no readable text.

    Make one with `Stream.open` or `Stream.load`.

    Attributes:
      base: the checkpoint that the stream began with.
      model: the model, with the levels that learn here.
      params: its slow weights: those of the checkpoint but for what sleep changed.
      apart: the same with the blocks taken apart.
      limits: of what reading may do to weights.
      reservoir: windows of what was read.
      tokens_read: since the stream was opened first.

    Example::

        stream = hope_jax.Stream.open("runs/hope")
        stream.read("The harbour's new master is Anna Brandt.")
        stream.forget_context()
        stream.answer("Who is the harbour's master?")
        stream.save("streams/harbour")
    """

    def __init__(
        self,
        base: Loaded,
        config: ModelConfig,
        params: Any,
        *,
        state: StreamState | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        reservoir: Reservoir | None = None,
        tokens_read: int = 0,
        sleeps: int = 0,
    ):
        self.base, self.model, self.params = base, LanguageModel(config), params
        self.limits, self.tokens_read, self.sleeps = limits, tokens_read, sleeps
        self.reservoir = Reservoir() if reservoir is None else reservoir
        self.state = fresh(self.model, params) if state is None else state
        self.apart = params_apart(params)
        self._read = (np.zeros(0, np.int32), np.zeros(0, np.float32))

    @classmethod
    def open(
        cls,
        checkpoint: str | Path | Loaded,
        *,
        levels: Mapping[int, int] | Sequence[int] | None = None,
        lr: float | tuple[float, ...] | None = None,
        blocks: int | None = None,
        stack: str | None = None,
        rule: str | None = None,
        clip: float | None = None,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        reservoir: int = 16_384,
        window: int = 256,
    ) -> Stream:
        """Begin a stream that has read nothing.

        Args:
          checkpoint: folder of a run or of one checkpoint, or what `hope_jax.load` gave.
          levels: tokens per update by period of the CMS, such as `{1: 64, 16: 512}`; or tokens
            alone, such as `(64, 512)`: the MLPs of the blocks that learn become two levels, as
            those of a pretrained Transformer do; None: as the model was trained (a model that
            was not trained to learn does not), empty: no level learns.
          lr, blocks, stack, rule, clip: of the updates, in place of what the model was trained
            with; see `hope_jax.config.InContextConfig`.
          limits: of what reading may do to weights.
          reservoir: tokens kept for sleep at most; 0 keeps none, and no saved stream has
            readable text then.
          window: tokens that sleep reads in one context.

        Raises:
          ValueError: settings that do not fit the model.
        """
        base = checkpoint if isinstance(checkpoint, Loaded) else load(checkpoint)
        changes = {"lr": lr, "blocks": blocks, "stack": stack, "rule": rule, "clip": clip}
        config = learning_config(base.config.model, levels, **changes)
        params = with_slow_weights(config, base.params)
        return cls(base, config, params, limits=limits, reservoir=Reservoir(reservoir, window))

    @property
    def learns(self) -> bool:
        """Whether any level of the CMS learns from what is read."""
        return self.model.config.cms.in_context.on

    def read(self, text: str | bytes, *, learn: bool = True) -> float:
        """Read a text and go on from there.

        Args:
          text: what to read; may be empty.
          learn: False: the context changes, the CMS does not, and the reservoir does not.

        Returns:
          The mean loss in nats per token; `surprise()` has that of every token.
        """
        return self.read_ids(encode(self.model, self.base.tokenizer, text), learn=learn)

    def read_ids(self, ids_T: np.ndarray, *, learn: bool = True) -> float:
        """The same of token ids, int32 `[T]`, without the one that texts begin with.

        Raises:
          ValueError: ids that are no whole numbers or not in one row, or an id outside the
            vocabulary; nothing has been read then.
        """
        ids_T = check_ids(ids_T, self.base.tokenizer.vocab_size).astype(np.int32)
        self.state, loss_T = self._take(self.state, ids_T, Mode(True, learn, self.limits))
        self._read = (ids_T, loss_T)
        self.tokens_read += len(ids_T)
        if learn:
            self.reservoir.add(ids_T)
        elif len(ids_T):
            self.reservoir.cut()
        return self.surprise().mean

    def surprise(self) -> Surprise:
        """The loss of every token of what was read last."""
        ids_T, loss_T = self._read
        decode = self.base.tokenizer.decode
        return Surprise([decode([int(i)]).decode("utf-8", "replace") for i in ids_T], loss_T)

    def answer(
        self,
        prompt: str | bytes,
        *,
        tokens: int = 128,
        stop: str | None = "\n",
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        learn: bool = False,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        """Read a prompt and write what comes next.

        Args:
          prompt: the question; it is read with what the stream knows.
          tokens: of the answer at most.
          stop: text that ends the answer and does not belong to it; None: nothing does.
          temperature, top_k, top_p, seed: as of `hope_jax.inference.generate`; the default
            takes the likeliest token each time.
          learn: False: the stream is afterwards as if it had not been asked. True: it has
            read the prompt and its own answer, and learned from both.
          on_text: called with each piece of the answer as it comes.
        """
        how = sampling(temperature, top_k, top_p)
        require(tokens >= 0, f"tokens is {tokens}; use 0 or more")
        require(stop != "", "stop is empty, which every text ends with; use None for no stop")
        ids_T = encode(self.model, self.base.tokenizer, prompt)
        mode = Mode(True, False, self.limits)
        state, _ = self._take(self.state, ids_T, mode, room=tokens)
        parts = (self.model, self.apart, self.base.tokenizer, state, tokens)
        pieces = (piece.text for piece in write(*parts, how, seed, mode, ids_T))
        answer = ""
        for text in pieces if stop is None else up_to(stop, pieces):
            answer += text
            if on_text is not None and text:
                on_text(text)
        if learn:
            as_bytes = prompt.encode() if isinstance(prompt, str) else prompt
            self.read(as_bytes + answer.encode())
        return answer

    def forget_context(self, below: int | None = None) -> None:
        """Drop the fast state whose period is below `below`.

        The stream first learns from the chunk that is open, or it could not answer what stands
        there.

        Args:
          below: tokens. None: the context alone, which is what the mixers remember. A number:
            also the fast weights of levels that are updated more often than every `below`
            tokens.
        """
        self.state = forget_context(self.model, self.params, self.state, self.limits, below)
        self.reservoir.cut()

    def sleep(
        self,
        how: Sleep | None = None,
        *,
        folder: str | Path | None = None,
        progress: bool = True,
    ) -> SleepReport:
        """Move what the stream went through to slower levels, by their own optimizers.

        Awake afterwards, it has no fast state: what is left is in slow weights.

        Args:
          how: what is replayed, what is asked of it, and what is protected; None: `Sleep()`.
          folder: where an interrupted sleep is kept and goes on; None: nowhere.
          progress: whether to show a bar.

        Raises:
          ValueError: there is nothing to replay, or settings that do not fit the model.
        """
        params, report = consolidate(self, how or Sleep(), folder, progress)
        apart, state = params_apart(params), fresh(self.model, params)  # may be broken off
        self.params, self.apart, self.state = params, apart, state
        self.reservoir.cut()
        self.sleeps += 1
        return report

    def diff(self, other: Stream | None = None) -> dict[int, Change]:
        """Which level changed by how much, against another stream or the checkpoint.

        By period; by tokens per update where every block is a level (`level_changes`).

        Raises:
          ValueError: the other stream has another model.
        """
        if other is None:
            base = with_slow_weights(self.model.config, self.base.params)
            return level_changes(self.model.config, self.params, self.fast_weights, base)
        require(
            other.model.config == self.model.config,
            "the streams have different models, or different levels that learn",
        )
        return level_changes(
            self.model.config, self.params, self.fast_weights, other.params, other.fast_weights
        )

    @property
    def fast_weights(self) -> Any:
        """By level and matrix, `[blocks, 1, ...]`; None where no level learns."""
        return self.state.state.weights if self.learns else None

    @property
    def refused(self) -> int:
        """Updates that did not take place: not finite, or of what is noise to the model."""
        return int(self.state.state.refused_B[0]) if self.learns else 0

    def copy(self) -> Stream:
        """Another stream that has lived through the same."""
        return Stream(
            self.base,
            self.model.config,
            self.params,
            state=jax.tree.map(jnp.copy, self.state),
            limits=self.limits,
            reservoir=Reservoir.from_arrays(self.reservoir.arrays()),
            tokens_read=self.tokens_read,
            sleeps=self.sleeps,
        )

    def save(self, folder: str | Path, *, keep: int = 5) -> Path:
        """Add a point to a folder: all that differs from the checkpoint, whole or not at all.

        Without a reservoir the stream first learns from what it has of the chunk that is open,
        so that no token of it is kept.

        Args:
          folder: made if it is not there.
          keep: points; older ones are removed. 0 keeps all. Damaged ones that were saved
            last are renamed, and a warning names them.

        Returns:
          The file of the point.

        Raises:
          ValueError: the folder holds a stream of another checkpoint.
        """
        if not self.reservoir.tokens:
            self.settle()
        return storage.save(self, folder, keep)

    def settle(self) -> None:
        """Learn from the open chunk as it is; nothing of its tokens is kept."""
        if self.learns:
            self.state = settle_stream(self.model, self.params, self.state, self.limits)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        point: int | None = None,
        checkpoint: str | Path | Loaded | None = None,
    ) -> Stream:
        """Open a saved stream again, or go back to an earlier point of it.

        Args:
          folder: where it was saved.
          point: tokens that it had read; None: the one that was saved last.
          checkpoint: the one that it began with, if that has moved.

        Raises:
          FileNotFoundError: there is no stream, no such point, or no checkpoint.
          ValueError: the checkpoint is another (both fingerprints are named), or the point is
            damaged (the one before it is named).
        """
        return cls(**storage.load(folder, point, checkpoint))

    @staticmethod
    def points(folder: str | Path) -> list[int]:
        """The points of a saved stream: tokens read by then, in the order of saving."""
        return [point.tokens for point in storage.points(folder)]

    def _take(
        self, state: StreamState, ids_T: np.ndarray, mode: Mode, room: int = 0
    ) -> tuple[StreamState, np.ndarray]:
        """Read into a copy of `state`, with room for more tokens: the state, losses `[T]`.

        At the beginning of a text the token that the model's texts begin with comes first.
        """
        tokenizer = self.base.tokenizer
        begin_T = beginning(self.model, tokenizer, state) if len(ids_T) or room else ids_T
        ids_T = np.concatenate([begin_T, ids_T])
        state = open_stream(self.model, self.params, len(ids_T) + room, state)
        state, loss_BT = read_ids(
            self.model, self.params, self.apart, state, ids_T[None], tokenizer.vocab_size, mode
        )
        return state, np.asarray(loss_BT[0, len(begin_T) :])
