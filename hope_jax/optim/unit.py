"""Division by a norm, for any scale of the numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def unit(x: jax.Array, axis: int | tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """`x` divided by its Euclidean norm over `axis`, and the norm; zeros stay zeros.

    The largest entry is taken out first: squares of small and large floats are not floats.

    >>> x, norm = unit(jnp.array([3e-30, 4e-30]), 0)
    >>> print(f"{x[0]:.1f} {x[1]:.1f} {norm[0]:.1e}")
    0.6 0.8 5.0e-30
    """
    top = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)  # also of no entries
    x = x / jnp.where(top > 0, top, 1.0)
    norm = jnp.sqrt(jnp.sum(jnp.square(x), axis, keepdims=True))
    return x / jnp.where(norm > 0, norm, 1.0), top * norm
