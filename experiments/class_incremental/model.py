"""Answers of a model, and the gradient steps that are taken on examples."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from class_incremental.classes import Example
from class_incremental.coding import Coder

from hope_jax.config import ModelConfig
from hope_jax.layers.fast_weights import by_part
from hope_jax.models import LanguageModel, next_token_losses
from hope_jax.models.in_context import Reader

ROWS = 64  # queries at a time


def scores(
    config: ModelConfig, params: Any, ids_NT: jax.Array, last_N: jax.Array, state: Any = None
) -> jax.Array:
    """Scores of the token after each prompt, `[N, W]`; `state`: what was read before it."""
    logits_NTW = LanguageModel(config).apply({"params": params}, ids_NT, state).logits_BTW
    return jnp.take_along_axis(logits_NTW, last_N[:, None, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnames="config")
def _likeliest(config, params, ids_NT, last_N, seen_W, state):
    scores_NW = scores(config, params, ids_NT, last_N, state)
    return jnp.where(seen_W[None], scores_NW, -jnp.inf).argmax(axis=1)


def answers(
    config: ModelConfig,
    params: Any,
    coder: Coder,
    queries: Sequence[Example],
    seen: Sequence[int],
    state: Any = None,
) -> np.ndarray:
    """The likeliest of the tokens `seen` after each query: int32 `[N]`.

    Args:
      config: of the model, without levels that learn.
      params: its parameters.
      coder: makes tokens.
      queries: what is asked; their classes are not looked at.
      seen: tokens of the classes so far.
      state: a context with `ROWS` rows that every query stands in; None: none.
    """
    seen_W = np.zeros(config.vocab_rows, bool)
    seen_W[np.asarray(seen)] = True
    found, order = np.zeros(len(queries), np.int32), coder.by_length(queries)
    for start in range(0, len(order), ROWS):
        places = order[start : start + ROWS]
        filled = places + places[:1] * (ROWS - len(places))  # one shape
        batch = coder.batch([queries[i] for i in filled])
        best_N = _likeliest(config, params, batch.ids_NT, batch.last_N, seen_W, state)
        found[places] = np.asarray(best_N)[: len(places)]
    return found


def label_losses(
    config: ModelConfig, params: Any, ids_NT: jax.Array, last_N: jax.Array, label_N: jax.Array
) -> jax.Array:
    """Nats of the token of the class, among all tokens: `[N]`."""
    return next_token_losses(scores(config, params, ids_NT, last_N)[:, None], label_N[:, None])[
        :, 0
    ]


def with_added(config: ModelConfig, params: Any, weights: Any) -> Any:
    """Slow weights with the fast ones of a single stream added: parameters of a plain model.

    Args:
      config: of the model, with its levels.
      params: slow weights, blocks stacked.
      weights: as `hope_jax.Stream.fast_weights` gives them.
    """
    whole = Reader(config, params).whole(weights)
    adapting = config.cms.in_context.adapting(config.depth)
    cms = dict(params["blocks"]["cms"])
    for part, matrices in by_part(config, whole).items():
        cms[part] = dict(cms[part]) | {
            name: cms[part][name].at[-adapting:].add(w_NBDF[:, 0])
            for name, w_NBDF in matrices.items()
        }
    plain = {name: tree for name, tree in params.items() if name != "in_context"}
    return plain | {"blocks": params["blocks"] | {"cms": cms}}
