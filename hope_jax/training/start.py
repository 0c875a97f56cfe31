"""Weights that training begins with when they are those of another model."""

from __future__ import annotations

from typing import Any

import jax

from hope_jax.checkpoint.load import load
from hope_jax.config import TrainConfig
from hope_jax.data import Tokenizer
from hope_jax.models import misfit
from hope_jax.models.in_context import with_slow_weights


def starting_params(config: TrainConfig, tokenizer: Tokenizer, like: Any) -> Any:
    """Slow weights of the checkpoint `config.start`, placed as those of `like` are.

    What the model has for learning within a text, and the checkpoint has not, begins as it does
    in a new model.

    Args:
      config: of the run; `start` names a folder.
      tokenizer: of the data.
      like: shapes of all weights, with shardings.

    Raises:
      FileNotFoundError: there is nothing at `config.start`.
      ValueError: what is there is no checkpoint, or of a model with other weights, or the data
        have other ids than it knows.
    """
    loaded, where = load(config.start), f"start {config.start}"
    if loaded.tokenizer.fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"{where} knows the ids of the tokenizer {loaded.tokenizer.name} (fingerprint "
            f"{loaded.tokenizer.fingerprint}), and the data have those of {tokenizer.name} "
            f"({tokenizer.fingerprint}); prepare them with its tokenizer"
        )
    params = with_slow_weights(config.model, loaded.params)
    wrong = misfit(config.model, params)
    if wrong is not None:
        path, has, needs = wrong
        raise ValueError(
            f"{where}: its {path} is {has}, and this model's {needs}; use the model that it "
            "was trained as"
        )
    places = jax.tree.map(lambda x: x.sharding, like)
    return jax.device_put(jax.device_get(params), places)
