"""Reading text: the loss of every token, and a state that remembers it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hope_jax.inference.apart import params_apart
from hope_jax.inference.stream import (
    STEPS,
    Stream,
    layers_apart,
    layers_together,
    open_stream,
    read_pieces,
    step_tokens,
)
from hope_jax.models import LanguageModel


@struct.dataclass
class Reading:
    """What reading a text gave.

    Attributes:
      state: stream after the text; pass it on to `read` or `generate`.
      loss_T: float32 `[T]` loss of every token in nats, given all that came before. The
        first token of a fresh stream costs `ln(vocab_size)`: nothing is known yet.
    """

    state: Stream
    loss_T: np.ndarray


def read(
    model: LanguageModel,
    params: Any,
    tokenizer: Any,
    text: str | bytes,
    state: Stream | None = None,
    *,
    writes: bool = True,
) -> Reading:
    """Read `text` and go on from `state`, in memory that does not grow with the text.

    Args:
      model: the model.
      params: its parameters.
      tokenizer: turns the text into ids.
      text: what to read; may be empty.
      state: stream to go on from, left untouched; None: fresh memories.
      writes: False reads without writing to the memories.
    """
    ids_T = encode(model, tokenizer, text)
    stream = open_stream(model, params, len(ids_T), state)
    if stream.batch != 1:
        raise ValueError(f"the state holds {stream.batch} streams; read one at a time")
    stream, loss_BT, rest_BT = read_pieces(model, params, stream, ids_T[None], writes)
    losses = [loss_BT[0]]
    if not rest_BT.size:
        return Reading(stream, losses[0])
    apart, stream = params_apart(params), layers_apart(model, stream)
    keys_B = jax.random.split(jax.random.key(0), 1)
    for start in range(0, rest_BT.shape[1], STEPS):
        given = min(STEPS, rest_BT.shape[1] - start)
        given_BN = np.zeros((1, STEPS), np.int32)
        given_BN[:, :given] = rest_BT[:, start : start + given]
        steps = step_tokens(
            model,
            apart,
            stream,
            jnp.asarray(given_BN),
            given,
            given,
            keys_B,
            vocab=tokenizer.vocab_size,
            writes=writes,
        )
        stream = steps.stream
        losses.append(np.asarray(steps.loss_BN)[0, :given])
    return Reading(layers_together(stream), np.concatenate(losses))


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
