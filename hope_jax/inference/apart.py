"""One token through layers that are taken apart.

Training keeps the weights of all layers in stacked arrays and scans over them. For one token
that is wasteful: picking a layer out of the stack copies weights that are then read once. Here
every layer has arrays of its own, and the layers are written out one after the other.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.layers.block import Block
from hope_jax.layers.embed import Embed
from hope_jax.layers.norm import RMSNorm


def take_apart(stacked: Any, depth: int) -> tuple[Any, ...]:
    """One tree per layer from a tree whose arrays have a leading axis of layers.

    >>> [layer["w"].shape for layer in take_apart({"w": jnp.zeros((2, 3))}, depth=2)]
    [(3,), (3,)]
    """
    return tuple(jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(depth))


def put_together(layers: tuple[Any, ...]) -> Any:
    """Inverse of `take_apart`; None of no layer."""
    if not layers:
        return None
    return jax.tree.map(lambda *xs: jnp.stack(xs), *layers)


@jax.jit
def params_apart(params: Any) -> Any:
    """Parameters of a `LanguageModel` with its blocks taken apart: a copy of the weights."""
    depth = jax.tree.leaves(params["blocks"])[0].shape[0]
    return {**params, "blocks": take_apart(params["blocks"], depth)}


def read_token(
    config: ModelConfig, params: Any, states: tuple[Any, ...], id_B: jax.Array, writes: bool
) -> tuple[jax.Array, tuple[Any, ...]]:
    """What `LanguageModel` does with one token per row.

    Args:
      config: of the model.
      params: from `params_apart`.
      states: fast state of every layer.
      id_B: int32 tokens.
      writes: False reads without writing to the memories.

    Returns:
      float32 `logits_BW` of the next token, and the states.
    """
    embed = Embed(config).bind({"params": params["embed"]})
    x_BTD, new = embed(id_B[:, None]), []
    for weights, state in zip(params["blocks"], states, strict=True):
        x_BTD, state = Block(config, writes).apply({"params": weights}, x_BTD, state, None)
        new.append(state)
    x_BTD = RMSNorm(config.norm_eps).apply({"params": params["final_norm"]}, x_BTD)
    return embed.logits(x_BTD)[:, 0], tuple(new)
