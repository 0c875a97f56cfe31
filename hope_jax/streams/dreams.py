"""Text that a model writes for sleep, from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.inference.apart import params_apart
from hope_jax.inference.learning import Mode
from hope_jax.inference.sampling import Sampling
from hope_jax.inference.stream import fresh, layers_apart, open_stream, step_tokens
from hope_jax.models import LanguageModel
from hope_jax.models.in_context import with_slow_weights
from hope_jax.streams.levels import frozen_config

if TYPE_CHECKING:
    from hope_jax.streams.stream import Stream


def dream(stream: Stream, count: int, seed: int, *, awake: bool) -> list[np.ndarray]:
    """Windows of tokens that a model draws, all at once, after the one that texts begin with.

    Args:
      stream: whose model it is, and how long a window is.
      count: windows.
      seed: of the random numbers.
      awake: True: by the stream with its fast weights, which do not learn from it. False: by
        the checkpoint that it began with.
    """
    begin_id = stream.base.tokenizer.begin_id
    given = 0 if begin_id is None else 1
    window = given + stream.reservoir.window
    if awake:
        model, params = stream.model, stream.params
    else:
        model = LanguageModel(frozen_config(stream.model.config))
        params = with_slow_weights(model.config, stream.base.params)
    state = open_stream(model, params, window, fresh(model, params, count))
    if awake and stream.learns:
        rows = lambda w: jnp.broadcast_to(w, (w.shape[0], count, *w.shape[2:]))
        weights = jax.tree.map(rows, stream.fast_weights)
        state = state.replace(state=state.state.replace(weights=weights))
    steps = step_tokens(
        model,
        params_apart(params),
        layers_apart(model, state),
        jnp.full((count, window), begin_id or 0, jnp.int32),
        given,
        window,
        jax.random.split(jax.random.key(seed), count),
        how=Sampling(),
        vocab=stream.base.tokenizer.vocab_size,
        mode=Mode(True, False, stream.limits),
    )
    return list(np.asarray(steps.ids_BN))
