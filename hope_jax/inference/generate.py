"""Writing text with a trained model: prefill in pieces, then token by token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hope_jax.config.check import require
from hope_jax.inference.apart import params_apart
from hope_jax.inference.learning import Mode
from hope_jax.inference.limits import Limits
from hope_jax.inference.reading import beginning, encode
from hope_jax.inference.sampling import Sampling, sampling
from hope_jax.inference.stream import (
    STEPS,
    StreamState,
    layers_apart,
    layers_together,
    open_stream,
    read_ids,
    step_tokens,
)
from hope_jax.inference.text import TextStream
from hope_jax.models import LanguageModel


@struct.dataclass
class Generation:
    """What was written.

    Attributes:
      text: the new text, without the prompt.
      ids: int32 `[T]`, its tokens; the last one is the end-of-document token if the model
        ended the document.
      state: stream that has read the prompt and the new text; writing goes on from it.
    """

    text: str
    ids: np.ndarray
    state: StreamState


def check_settings(
    tokens: int, temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> Sampling:
    """Those of `generate`, which need no model to be checked; how tokens are drawn.

    Raises:
      ValueError: settings that make no sense.
    """
    how = sampling(temperature, top_k, top_p)
    require(tokens >= 0, f"tokens is {tokens}; use 0 or more")
    require(0 <= seed < 2**32, f"seed is {seed}; use 0 to {2**32 - 1}")
    return how


def generate(
    model: LanguageModel,
    params: Any,
    tokenizer: Any,
    prompt: str | bytes,
    *,
    tokens: int = 256,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    state: StreamState | None = None,
    writes: bool = True,
    learns: bool = True,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    on_text: Callable[[str], None] | None = None,
) -> Generation:
    """Read `prompt` and write up to `tokens` tokens after it.

    The time per token and the memory do not depend on how much has been read, except with
    an attention mixer. The same seed gives the same text, whatever the size of the pieces.

    Args:
      model: the model.
      params: its parameters.
      tokenizer: between text and ids; where it has a `begin_id`, a text begins with that
        token, and where it has an `end_id`, that token ends the text.
      prompt: text to go on from; may be empty only with a `state` or a `begin_id`.
      tokens: upper limit of new tokens.
      temperature: 0 takes the likeliest token each time.
      top_k: draw among this many likeliest tokens only.
      top_p: draw among the fewest likeliest tokens that have this probability together.
      seed: of the random numbers, below 2 ** 32.
      state: stream to go on from, left untouched; None: fresh memories.
      writes: False reads and writes text without writing to the memories.
      learns: False reads and writes text without updates of the CMS.
      limits: of such updates.
      on_text: called with each piece of new text as it comes.

    Raises:
      ValueError: settings that make no sense, or nothing to go on from.
    """
    how = check_settings(tokens, temperature, top_k, top_p, seed)
    require(
        state is None or state.batch == 1,
        f"the state holds {state and state.batch} streams; write with one",
    )
    ids_T = encode(model, tokenizer, prompt)
    ids_T = np.concatenate([beginning(model, tokenizer, state), ids_T])
    require(
        len(ids_T) > 0 or state is not None,
        f"the prompt {prompt!r} gives no token and there is no state to go on from; give some "
        "text",
    )
    stream = open_stream(model, params, len(ids_T) + tokens, state)
    mode = Mode(writes, learns, limits)
    apart = params_apart(params)
    stream, _ = read_ids(model, params, apart, stream, ids_T[None], tokenizer.vocab_size, mode)
    new_ids: list[int] = []
    texts: list[str] = []
    for piece in write(model, apart, tokenizer, stream, tokens, how, seed, mode, ids_T):
        stream = piece.state
        new_ids.extend(piece.ids)
        texts.append(piece.text)
        if on_text is not None and piece.text:
            on_text(piece.text)
    stream = layers_together(stream) if new_ids else stream
    return Generation("".join(texts), np.asarray(new_ids, np.int32), stream)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A few tokens that were just written.

    Attributes:
      text: what they complete; the last piece has what was held back.
      ids: the tokens.
      state: after them, layers apart; to be used before the next piece is asked for.
    """

    text: str
    ids: list[int]
    state: StreamState


def write(
    model: LanguageModel,
    apart: Any,
    tokenizer: Any,
    stream: StreamState,
    tokens: int,
    how: Sampling,
    seed: int,
    mode: Mode,
    before: Iterable[int] = (),
) -> Iterator[Piece]:
    """Write up to `tokens` tokens, a few at a time.

    Args:
      model: the model.
      apart: its parameters, from `params_apart`.
      tokenizer: from ids to text.
      stream: consumed.
      tokens: at most so many.
      how: how to draw.
      seed: of the random numbers.
      mode: what the tokens may change.
      before: ids before them, for tokenizers that look at these.
    """
    stream = layers_apart(model, stream) if tokens else stream
    out = TextStream(tokenizer, before)
    end_id = getattr(tokenizer, "end_id", None)
    end_id = -1 if end_id is None else end_id
    keys_B = jax.random.split(jax.random.key(seed), 1)
    room_BN, written, ended = jnp.zeros((1, STEPS), jnp.int32), 0, False
    while written < tokens and not ended:
        steps = step_tokens(
            model,
            apart,
            stream,
            room_BN,
            0,
            min(STEPS, tokens - written),
            keys_B,
            written,
            how=how,
            end_id=end_id,
            vocab=tokenizer.vocab_size,
            mode=mode,
        )
        stream, ended = steps.stream, bool(steps.done_B[0])
        ids = np.asarray(steps.ids_BN)[0, : int(steps.count)].tolist()
        written += len(ids)
        text = out.feed(ids[:-1] if ended else ids)
        if ended or written >= tokens:
            text += out.close()
        yield Piece(text, ids, stream)
