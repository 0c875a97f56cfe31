"""Loss of every token of a batch of texts, with updates on the way: what training calls."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.layers.fast_weights import moving_levels
from hope_jax.models.in_context.fast import fresh_fast
from hope_jax.models.in_context.reader import Reader
from hope_jax.models.losses import next_token_losses


class InContextLosses(NamedTuple):
    """What reading with updates on the way gave.

    Attributes:
      losses_BT: nats, float32, differentiable in the slow weights through the updates.
      below: statistics of what lies below the cut.
      above: of what lies above it, chunks first; None where no mixer does.
      right_BT: bool, whether the likeliest token was the target; None unless asked for.
    """

    losses_BT: jax.Array
    below: Any
    above: Any
    right_BT: jax.Array | None = None


def in_context_losses(
    config: ModelConfig,
    params: Any,
    tokens_BT: jax.Array,
    targets_BT: jax.Array,
    reset_BT: jax.Array | None = None,
    drop_BT: jax.Array | None = None,
    judge: bool = False,
) -> InContextLosses:
    """Loss of every token when the CMS learns from those before it.

    Args:
      config: of the model; `config.cms.in_context` says how.
      params: slow weights.
      tokens_BT: int32 tokens; rows begin fresh.
      targets_BT: what follows each.
      reset_BT: True where a document begins: everything is forgotten. None, where none does
        but at the rows' beginnings, costs less.
      drop_BT: True where the context is dropped: the mixers forget, the CMS does not.
      judge: also tell where the likeliest token is the target.
    """
    reader, chunk = Reader(config, params), config.cms.in_context.chunk
    batch, length = tokens_BT.shape
    mixers_BT = reset_BT
    if drop_BT is not None:
        mixers_BT = drop_BT if reset_BT is None else reset_BT | drop_BT
    below = reader.read_below(tokens_BT, None, mixers_BT)
    states = reader.empty_states(batch, length)
    fast, ticks = fresh_fast(config, params, batch), length // chunk
    chunks = lambda x_BT: None if x_BT is None else _chunks(x_BT, ticks, chunk)
    xs = {
        "x": chunks(below.y),
        "targets": chunks(targets_BT),
        "reset": chunks(reset_BT),
        "mixers": chunks(mixers_BT),
        "due": _due(config, ticks),
    }

    def right(logits_BCW, targets_BC):
        return logits_BCW.argmax(axis=-1) == targets_BC if judge else None

    def tick(weights, carry, x):
        states, forgot = carry
        now = fast.replace(weights=weights, forgot=forgot)
        seen = weights if x["reset"] is None else now.in_sight()
        grads, losses_BC, part = reader.chunk_gradient(
            seen, x["x"], states, x["targets"], x["reset"], x["mixers"]
        )
        out = losses_BC, part.stats, right(part.y, x["targets"])
        if x["reset"] is None:
            return grads, (part.states, forgot), out
        began_B = x["reset"].any(axis=1)
        forgot = {level: f | began_B for level, f in forgot.items()}
        left = {level: f & ~x["due"][level] for level, f in forgot.items()}
        return grads, (part.states, left), out, {"forgot": forgot, "began": began_B}

    whole = lambda x_NBC: x_NBC.swapaxes(0, 1).reshape(batch, ticks * chunk)
    parts, stats, judged = [], [], []
    if ticks:
        weights, _, (states, forgot), (losses_NBC, above, right_NBC) = reader.levels.run(
            tick,
            fast.weights,
            fast.levels,
            (states, fast.forgot),
            xs,
            start=0,
            remat=[reader.levels.levels[0].name],
        )
        fast = fast.replace(weights=weights, forgot=forgot)
        parts.append(whole(losses_NBC))
        judged.append(whole(right_NBC) if judge else None)
        stats.append(above)
    if ticks * chunk < length:  # too few tokens for an update
        last = lambda x_BT: None if x_BT is None else x_BT[:, ticks * chunk :]
        seen, fresh_BR = fast.in_sight(), None
        if reset_BT is not None:
            fresh_BR = jnp.cumsum(last(reset_BT), axis=1) > 0
        now = reader.fast_weights(seen, jax.tree.map(jnp.zeros_like, seen), fresh_BR)
        tail = reader.read_above(last(below.y), states, now, last(mixers_BT))
        parts.append(next_token_losses(tail.y, last(targets_BT)))
        judged.append(right(tail.y, last(targets_BT)))
        stats.append(jax.tree.map(lambda s: s[None], tail.stats))
    joined = jax.tree.map(lambda *s: jnp.concatenate(s), *stats)
    right_BT = jnp.concatenate(judged, axis=1) if judge else None
    return InContextLosses(jnp.concatenate(parts, axis=1), below.stats, joined, right_BT)


def _chunks(x_BT: jax.Array, ticks: int, chunk: int) -> jax.Array:
    """`[B, T, ...]` as `[ticks, B, chunk, ...]`, without what is left over."""
    batch, rest = x_BT.shape[0], x_BT.shape[2:]
    return x_BT[:, : ticks * chunk].reshape(batch, ticks, chunk, *rest).swapaxes(0, 1)


def _due(config: ModelConfig, ticks: int) -> dict[str, jax.Array]:
    """By level, `[ticks]`: whether it is updated after the tick."""
    chunk = config.cms.in_context.chunk
    after = jnp.arange(1, ticks + 1)
    return {n: after % (tokens // chunk) == 0 for n, tokens in moving_levels(config).items()}
