"""Reading text: the loss of every token, and a state that remembers it."""

from __future__ import annotations

from typing import Any

import numpy as np
from flax import struct

from hope_jax.inference.apart import params_apart
from hope_jax.inference.learning import Mode
from hope_jax.inference.limits import Limits
from hope_jax.inference.stream import StreamState, at_beginning, open_stream, read_ids
from hope_jax.models import LanguageModel


@struct.dataclass
class Reading:
    """What reading a text gave.

    Attributes:
      state: stream after the text; pass it on to `read` or `generate`.
      loss_T: float32 `[T]` loss of every token in nats, given all that came before. The
        first token of a fresh stream costs `ln(vocab_size)`: nothing is known yet, unless the
        tokenizer has a `begin_id`, which is read first and not in this list.
    """

    state: StreamState
    loss_T: np.ndarray


def read(
    model: LanguageModel,
    params: Any,
    tokenizer: Any,
    text: str | bytes,
    state: StreamState | None = None,
    *,
    writes: bool = True,
    learns: bool = True,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> Reading:
    """Read `text` and go on from `state`, in memory that does not grow with the text.

    Args:
      model: the model.
      params: its parameters.
      tokenizer: turns the text into ids.
      text: what to read; may be empty.
      state: stream to go on from, left untouched; None: fresh memories.
      writes: False reads without writing to the memories.
      learns: False reads without updates of the CMS, where it has any within a text.
      limits: of such updates.
    """
    if state is not None and state.batch != 1:
        raise ValueError(f"the state holds {state.batch} streams; read one at a time")
    begin_T = beginning(model, tokenizer, state)
    ids_T = np.concatenate([begin_T, encode(model, tokenizer, text)])
    stream = open_stream(model, params, len(ids_T), state)
    mode = Mode(writes, learns, limits)
    apart = params_apart(params)
    stream, loss_BT = read_ids(
        model, params, apart, stream, ids_T[None], tokenizer.vocab_size, mode
    )
    return Reading(stream, loss_BT[0, len(begin_T) :])


def beginning(
    model: LanguageModel, tokenizer: Any, state: StreamState | None = None
) -> np.ndarray:
    """What comes before the next token: the token that a text begins with, or nothing.

    Int32 `[1]` where the tokenizer has such a token and nothing has been read since the stream
    of one row began or forgot its context; `[0]` elsewhere.
    """
    return beginnings(model, tokenizer, state)[0]


def beginnings(
    model: LanguageModel, tokenizer: Any, state: StreamState | None
) -> list[np.ndarray]:
    """The same of every row; of a stream that is not there yet, of one."""
    begin_id, rows = tokenizer.begin_id, 1 if state is None else state.batch
    if begin_id is None:
        return [np.zeros(0, np.int32)] * rows
    begins_B = [True] if state is None else at_beginning(model, state)
    return [np.asarray([begin_id] if begins else [], np.int32) for begins in begins_B]


def encode(model: LanguageModel, tokenizer: Any, text: str | bytes) -> np.ndarray:
    """Token ids of `text`, int32 `[T]`.

    Raises:
      ValueError: the tokenizer has more ids than the model.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids and the model "
            f"{model.config.vocab_size}; use the tokenizer that the model was trained with"
        )
    return np.asarray(tokenizer.encode(text), np.int32)
