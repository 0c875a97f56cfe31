"""The loss: one function for training, evaluation and the plots."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.models import (
    LanguageModel,
    legal_set_losses,
    legal_set_right,
    next_token_losses,
)
from hope_jax.models.in_context import in_context_losses
from hope_jax.nested.paths import path_name

EVENTS = "write_events"  # this statistic is a count; all others are means


@flax.struct.dataclass
class Judged:
    """What reading a batch gave.

    Attributes:
      loss_BT: of every answer in nats, float32.
      right_BT: bool, whether what the model thinks likeliest is the answer; None unless asked.
      stats: the mixers' statistics.
    """

    loss_BT: jax.Array
    right_BT: jax.Array | None
    stats: dict[str, jax.Array]


def token_losses(
    model: LanguageModel, params: Any, batch: dict[str, jax.Array], *, writes: bool = True
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss of every token in nats, `[B, T]` float32, and the mixers' statistics.

    Args:
      model: the language model.
      params: slow weights.
      batch: `tokens` int32 `[B, T + 1]` and `reset` bool `[B, T]`, and of a task `targets` or
        `legal` int32 `[B, T]` where the answer is not the next token.
      writes: False reads without writing to the memories, those of the CMS included.
    """
    read = judge(model, params, batch, writes=writes, right=False)
    return read.loss_BT, read.stats


def judge(
    model: LanguageModel,
    params: Any,
    batch: dict[str, jax.Array],
    *,
    writes: bool = True,
    right: bool = True,
) -> Judged:
    """`token_losses`, and with `right` where the model is right.

    Raises:
      ValueError: the CMS learns within the text, and the answers are not in it.
    """
    tokens = batch["tokens"]
    if model.config.cms.in_context.on and writes:
        if {"targets", "legal"} & set(batch):
            raise ValueError(
                "the answers of this task are not in its text, so a CMS cannot learn from them "
                "while reading; turn model.cms.in_context off, or use another task"
            )
        read = in_context_losses(
            model.config, params, tokens[:, :-1], tokens[:, 1:], batch["reset"], judge=right
        )
        stats = read.below
        if read.above is not None:
            stats = jax.tree_util.tree_map_with_path(_of_all_blocks, read.below, read.above)
        return Judged(read.losses_BT, read.right_BT, _named(stats))
    output, sown = model.apply(
        {"params": params},
        tokens[:, :-1],
        reset_BT=batch["reset"],
        writes=writes,
        mutable=["stats"],
    )
    logits_BTW, stats = output.logits_BTW, _named(sown.get("stats", {}))
    if "legal" in batch:
        asked = batch["legal"], model.config.vocab_size
        right_BT = legal_set_right(logits_BTW, *asked) if right else None
        return Judged(legal_set_losses(logits_BTW, *asked), right_BT, stats)
    targets_BT = batch.get("targets", tokens[:, 1:])
    right_BT = logits_BTW.argmax(axis=-1) == targets_BT if right else None
    return Judged(next_token_losses(logits_BTW, targets_BT), right_BT, stats)


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
