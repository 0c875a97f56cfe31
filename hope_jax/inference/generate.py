"""Writing text with a trained model: prefill in pieces, then token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hope_jax.config.check import require
from hope_jax.inference.apart import params_apart
from hope_jax.inference.reading import encode
from hope_jax.inference.sampling import sampling
from hope_jax.inference.stream import (
    STEPS,
    Stream,
    layers_apart,
    layers_together,
    open_stream,
    read_pieces,
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
    state: Stream


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
    state: Stream | None = None,
    writes: bool = True,
    on_text: Callable[[str], None] | None = None,
) -> Generation:
    """Read `prompt` and write up to `tokens` tokens after it.

    The time per token and the memory do not depend on how much has been read, except with
    an attention mixer. The same seed gives the same text, whatever the size of the pieces.

    Args:
      model: the model.
      params: its parameters.
      tokenizer: between text and ids; where it has an `end_id`, that token ends the text.
      prompt: text to go on from; may be empty only with a `state`.
      tokens: upper limit of new tokens.
      temperature: 0 takes the likeliest token each time.
      top_k: draw among this many likeliest tokens only.
      top_p: draw among the fewest likeliest tokens that have this probability together.
      seed: of the random numbers, below 2 ** 32.
      state: stream to go on from, left untouched; None: fresh memories.
      writes: False reads and writes text without writing to the memories.
      on_text: called with each piece of new text as it comes.

    Raises:
      ValueError: settings that make no sense, or nothing to go on from.
    """
    how = sampling(temperature, top_k, top_p)
    require(tokens >= 0, f"tokens is {tokens}; use 0 or more")
    require(0 <= seed < 2**32, f"seed is {seed}; use 0 to {2**32 - 1}")
    ids_T = encode(model, tokenizer, prompt)
    require(
        len(ids_T) > 0 or state is not None,
        "the prompt is empty and there is no state to go on from; give at least a newline",
    )
    stream = open_stream(model, params, len(ids_T) + tokens, state)
    require(stream.batch == 1, f"the state holds {stream.batch} streams; write with one")
    out = TextStream(tokenizer, ids_T)
    end_id = getattr(tokenizer, "end_id", None)
    end_id = -1 if end_id is None else end_id
    new_ids: list[int] = []
    texts: list[str] = []

    def show(text: str) -> None:
        if text:
            texts.append(text)
            if on_text is not None:
                on_text(text)

    stream, _, rest_BT = read_pieces(model, params, stream, ids_T[None], writes)
    apart, stream = params_apart(params), layers_apart(model, stream)
    keys_B = jax.random.split(jax.random.key(seed), 1)
    left, ended = rest_BT[0], False
    while len(left) or (len(new_ids) < tokens and not ended):
        given = min(STEPS, len(left))
        given_BN = np.zeros((1, STEPS), np.int32)
        given_BN[0, :given], left = left[:given], left[given:]
        total = min(STEPS, given + tokens - len(new_ids)) if not len(left) else given
        steps = step_tokens(
            model,
            apart,
            stream,
            jnp.asarray(given_BN),
            given,
            total,
            keys_B,
            len(new_ids),
            how=how,
            end_id=end_id,
            vocab=tokenizer.vocab_size,
            writes=writes,
        )
        stream, ended = steps.stream, bool(steps.done_B[0])
        drawn = np.asarray(steps.ids_BN)[0, given : int(steps.count)].tolist()
        new_ids.extend(drawn)
        show(out.feed(drawn[:-1] if ended else drawn))
    show(out.close())
    stream = layers_together(stream)
    return Generation("".join(texts), np.asarray(new_ids, np.int32), stream)
