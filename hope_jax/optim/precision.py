"""What accumulates is in float32 at least; updates are in the type of the gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax


def wide_type(x: Any) -> jnp.dtype:
    """The type that a parameter's state has."""
    return jnp.promote_types(x.dtype, jnp.float32)


def zeros(params: optax.Params) -> optax.Params:
    """Zeros like the parameters, placed as they are."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=wide_type(x)), params)


def widen(tree: Any) -> Any:
    """The tree in the types that its state has."""
    return jax.tree.map(lambda x: x.astype(wide_type(x)), tree)


def like(made: Any, updates: optax.Updates) -> optax.Updates:
    """`made` in the types of `updates`."""
    return jax.tree.map(lambda m, g: m.astype(g.dtype), made, updates)


def in_wide_type(
    tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """`tx` with inside what is above, for transformations of optax that keep the type.

    >>> tx = in_wide_type(optax.trace(0.9))
    >>> g = jnp.ones(2, jnp.bfloat16)
    >>> update, state = tx.update(g, tx.init(g))
    >>> print(update.dtype, state.trace.dtype)
    bfloat16 float32
    """
    tx = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra):
        made, state = tx.update(widen(updates), state, widen(params), **extra)
        return like(made, updates), state

    return optax.GradientTransformationExtraArgs(lambda p: tx.init(widen(p)), update)
