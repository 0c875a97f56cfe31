"""The loss: one function for training, evaluation and the plots."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from hope_jax.models import LanguageModel, next_token_losses
from hope_jax.models.in_context import in_context_losses
from hope_jax.nested.paths import path_name

EVENTS = "write_events"  # this statistic is a count; all others are means


def token_losses(
    model: LanguageModel, params: Any, batch: dict[str, jax.Array], *, writes: bool = True
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss of every token in nats, `[B, T]` float32, and the mixers' statistics.

    Args:
      model: the language model.
      params: slow weights.
      batch: `tokens` int32 `[B, T + 1]` and `reset` bool `[B, T]`.
      writes: False reads without writing to the memories, those of the CMS included.
    """
    tokens = batch["tokens"]
    if model.config.cms.in_context.on and writes:
        losses_BT, below, above = in_context_losses(
            model.config, params, tokens[:, :-1], tokens[:, 1:], batch["reset"]
        )
        stats = below
        if above is not None:
            stats = jax.tree_util.tree_map_with_path(_of_all_blocks, below, above)
        return losses_BT, _named(stats)
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


def _of_all_blocks(path: Any, below: jax.Array, above: jax.Array) -> jax.Array:
    """A statistic of the blocks that read a text at once and of those that read its chunks."""
    over_chunks = jnp.sum if EVENTS in path_name(path) else jnp.mean
    return jnp.concatenate([below, over_chunks(above, axis=0).astype(below.dtype)])


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
