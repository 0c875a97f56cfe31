"""The levels within a text: an optimizer per level and text, with learned rates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from hope_jax.config import InContextConfig, ModelConfig
from hope_jax.layers.fast_weights import moving
from hope_jax.nested import Level, Levels

MOMENTUM = 0.9


def inner_levels(config: ModelConfig, params: Any, *, rows: bool = True) -> Levels:
    """Levels for fast weights of shape `[blocks, B, ...]`; a tick is the fastest one's chunk.

    Args:
      config: of the model; `cms.in_context` says how.
      params: slow weights, of which the learned rates are read.
      rows: False: for one text, without the axis B.
    """
    how, there = config.cms.in_context, moving(config)
    nested, levels = config.cms.variant == "nested" and not how.stacked, []
    for i, (name, level) in enumerate(there.items()):
        rate = jnp.full(len(level.blocks), level.rate, jnp.float32)
        if how.learn_lr:
            rate = rate * jnp.exp(params["in_context"][f"log_rate_{name}"])
        levels.append(
            Level(
                name,
                level.chunk // how.chunk,
                per_text(_rule(how, rate), name) if rows else _rule(how, rate),
                name,
                reduction="mean",
                reset_to_init=nested and i + 1 < len(there),
            )
        )
    return Levels(tuple(levels), clear=_of_this_text if rows else None)


def _of_this_text(grad_sum: Any, extra: dict[str, Any]) -> Any:
    """Sums of gradients `[blocks, B, ...]` without those of texts that are over.

    `extra` has `began`, `[B]`: whether a text begins within the tick; without it none does.
    """
    if "began" not in extra:
        return grad_sum
    began_B = extra["began"]
    return jax.tree.map(lambda s: _choose(began_B, jnp.zeros_like(s), s, 1), grad_sum)


def _choose(where_B: jax.Array, a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """Rows of `a` or of `b`; B is at `axis`."""
    shape = [1] * a.ndim
    shape[axis] = -1
    return jnp.where(where_B.reshape(shape), a, b)


def _rule(how: InContextConfig, rate: jax.Array) -> optax.GradientTransformation:
    """A step for the fast weights `[blocks, ...]` of one level and one text."""
    rules = {
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(MOMENTUM),
        "adam": lambda: optax.scale_by_adam(b1=0.9, b2=0.95),
    }
    by_block = lambda u: -rate.reshape(-1, *(1,) * (u.ndim - 1)) * u
    return optax.chain(
        optax.clip_by_global_norm(how.clip),
        rules[how.rule](),
        optax.stateless(lambda updates, params: jax.tree.map(by_block, updates)),
    )


def per_text(
    tx: optax.GradientTransformation, name: str
) -> optax.GradientTransformationExtraArgs:
    """`tx` for every text on its own: arrays `[blocks, B, ...]`, states `[B, ...]`.

    With the extra argument `forgot`, a dict with `[B]` at `name`, a text that began since the
    last update takes its step from zero and from a fresh state.
    """

    def init(params):
        return jax.vmap(tx.init, in_axes=1)(params)

    def update(updates, state, params, *, forgot=None, **extra):
        del extra
        step = jax.vmap(lambda u, s, p: tx.update(u, s, p), in_axes=(1, 0, 1), out_axes=(1, 0))
        if forgot is None:
            return step(updates, state, params)
        new_B = forgot[name]
        fresh = init(jax.tree.map(jnp.zeros_like, params))
        state = jax.tree.map(lambda a, b: _choose(new_B, a, b, 0), fresh, state)
        here = jax.tree.map(lambda p: _choose(new_B, jnp.zeros_like(p), p, 1), params)
        change, state = step(updates, state, here)
        return jax.tree.map(lambda c, h, p: c + (h - p), change, here, params), state

    return optax.GradientTransformationExtraArgs(init, update)
