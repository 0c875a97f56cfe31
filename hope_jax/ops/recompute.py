"""What the backward pass does again instead of reading it back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from hope_jax.ops.own_gradient import plain_gradients_wanted

Remat = Literal["auto", "none", "chunk", "sqrt"]

# Above this many chunks `remat="auto"` keeps only every sqrt(N)-th state.
_SQRT_REMAT_CHUNKS = 256


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, of which the backward pass keeps the arguments and nothing else.

    For norms, gates and short convolutions: each leaves several arrays as large as the
    activations to be written, kept and read, which costs more than computing them twice.
    A matrix product whose result only leaves the function is not computed again. Within
    `plain_gradients` nothing is: whoever differentiates twice keeps less as a whole, and every
    repetition in a repetition is compiled once more.
    """
    if plain_gradients_wanted():
        return function
    # layers are scanned, so nothing merges the two computations; where layers are unrolled
    # a merge saves time
    return jax.checkpoint(function, prevent_cse=False)


def scan_chunks(
    body: Callable[[Any, Any], tuple[Any, Any]], state: Any, xs: Any, remat: Remat = "auto"
) -> tuple[Any, Any]:
    """`lax.scan` over chunks, of which the backward pass keeps little.

    Args:
      body: one chunk, `(state, chunk) -> (state, outputs)`.
      state: state before the first chunk.
      xs: chunks along the leading axis.
      remat: "none" keeps every chunk's intermediates, "chunk" the state before each chunk,
        "sqrt" every sqrt(N)-th of these; "auto" is "chunk" until there are many chunks.

    >>> scan_chunks(lambda s, x: (s + x, s), jnp.zeros(()), jnp.ones(4), "sqrt")[1].tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    if plain_gradients_wanted():
        remat = "none"
    if remat == "auto":
        remat = "sqrt" if count > _SQRT_REMAT_CHUNKS else "chunk"
    if remat == "none":
        return jax.lax.scan(body, state, xs)
    body = jax.checkpoint(body, prevent_cse=False)
    inner = math.isqrt(count)
    if remat == "chunk" or inner < 2:
        return jax.lax.scan(body, state, xs)
    outer = count // inner
    head = jax.tree.map(lambda x: x[: outer * inner].reshape(outer, inner, *x.shape[1:]), xs)

    @jax.checkpoint
    def several(carry, part):
        return jax.lax.scan(body, carry, part)

    state, outs = jax.lax.scan(several, state, head)
    outs = jax.tree.map(lambda x: x.reshape(outer * inner, *x.shape[2:]), outs)
    if outer * inner == count:
        return state, outs
    state, rest = jax.lax.scan(body, state, jax.tree.map(lambda x: x[outer * inner :], xs))
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outs, rest)
