"""The loss: one function for training, evaluation and the plots."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from hope_jax.models import LanguageModel, next_token_losses

EVENTS = "write_events"  # this statistic is a count; all others are means


def token_losses(
    model: LanguageModel, params: Any, batch: dict[str, jax.Array], *, writes: bool = True
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss of every token in nats, `[B, T]` float32, and the mixers' statistics.

    Args:
      model: the language model.
      params: slow weights.
      batch: `tokens` int32 `[B, T + 1]` and `reset` bool `[B, T]`.
      writes: False reads without writing to the memories.
    """
    tokens = batch["tokens"]
    output, sown = model.apply(
        {"params": params},
        tokens[:, :-1],
        reset_BT=batch["reset"],
        writes=writes,
        mutable=["stats"],
    )
    return next_token_losses(output.logits_BTW, tokens[:, 1:]), _named(sown.get("stats", {}))


def merge(stats: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Statistics stacked over micro-batches, as those of one batch."""
    return {name: _reduce(name, values) for name, values in stats.items()}


def _named(stats: Any) -> dict[str, jax.Array]:
    """What the layers sowed, by name: means over the layers, and sums of counts."""
    found: dict[str, jax.Array] = {}
    for path, value in jax.tree_util.tree_leaves_with_path(stats):
        keys = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
        name = "/".join(key for key in keys if key not in ("blocks", "mixer"))
        found[name] = _reduce(name, value)
    return found


def _reduce(name: str, values: jax.Array) -> jax.Array:
    values = values.astype(jnp.float32)
    return values.sum() if name.endswith(EVENTS) else values.mean()
