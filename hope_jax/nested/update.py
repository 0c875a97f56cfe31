"""One update of one level (Eq. 71), common to single ticks and to nested scans."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from hope_jax.nested.level import Level
from hope_jax.nested.paths import pick, union
from hope_jax.nested.state import LevelState


def init_level(level: Level, params: Any, anchor: Any) -> LevelState:
    """Fresh state of a level that owns `params` and the initial values in `anchor`."""
    owned = union(params, anchor) if anchor else params
    grad_sum = {} if level.period == 1 else jax.tree.map(_zeros_for_sum, owned)
    return LevelState(opt_state=level.tx.init(owned), grad_sum=grad_sum, anchor=anchor)


def accumulate(level: Level, grad_sum: Any, grads: Any) -> Any:
    """Add one tick's gradient to the level's sum; nothing to do at period 1."""
    if level.period == 1:
        return grad_sum
    return jax.tree.map(lambda s, g: s + g.astype(s.dtype), grad_sum, grads)


def update(
    level: Level, params: Any, state: LevelState, grads: Any, extra: dict[str, Any]
) -> tuple[Any, LevelState, jax.Array]:
    """Step the optax transformation at the level's boundary and clear the sum.

    `grads` is this tick's gradient; only a level of period 1 uses it. Returns the new
    parameters, the new state and the float32 norm of the change.
    """
    total = grads if level.period == 1 else state.grad_sum
    if level.reduction == "mean":
        total = jax.tree.map(lambda g: g / level.period, total)
    owned = union(params, state.anchor) if state.anchor else params
    total = jax.tree.map(lambda g, p: g.astype(p.dtype), total, owned)
    tx = optax.with_extra_args_support(level.tx)
    change, opt_state = tx.update(total, state.opt_state, owned, **extra)
    owned = optax.apply_updates(owned, change)
    grad_sum = jax.tree.map(jnp.zeros_like, state.grad_sum)
    state = LevelState(opt_state, grad_sum, pick(owned, state.anchor))
    return pick(owned, params), state, norm(change)


def norm(tree: Any) -> jax.Array:
    """Global norm in float32."""
    return optax.tree.norm(jax.tree.map(lambda x: x.astype(jnp.float32), tree))


def _zeros_for_sum(x: jax.Array) -> jax.Array:
    """Zeros in which gradients are summed: float32 at least."""
    return jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))
