"""Elastic weight consolidation: what earlier tasks need is held where it is.

Kirkpatrick et al. 2017, arXiv:1612.00796: `strength / 2 * sum_i F_i (w_i - w*_i)^2`, one term
for each earlier task, F the diagonal of its Fisher information at the weights w* after it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from class_incremental.coding import Batch
from class_incremental.model import label_losses

from hope_jax.config import ModelConfig


@flax.struct.dataclass
class Held:
    """The terms of all earlier tasks as one: up to a constant their sum is a term, too.

    Attributes:
      fisher: sum of their diagonals.
      anchor: mean of their weights, weighted with these.
    """

    fisher: Any
    anchor: Any


def nothing_held(params: Any) -> Held:
    """Before the first task."""
    return Held(jax.tree.map(jnp.zeros_like, params), params)


def hold(held: Held, fisher: Any, params: Any) -> Held:
    """With the term of one more task."""
    total = jax.tree.map(jnp.add, held.fisher, fisher)

    def mean(anchor, old, new, both, here):
        weighted = (old * anchor + new * here) / jnp.where(both > 0, both, 1.0)
        return jnp.where(both > 0, weighted, here)

    anchor = jax.tree.map(mean, held.anchor, held.fisher, fisher, total, params)
    return Held(total, anchor)


def penalty(held: Held, params: Any, strength: float | jax.Array) -> jax.Array:
    """`strength / 2 * sum F (w - w*)^2`.

    >>> held = Held({"w": jnp.array([2.0, 0.0])}, {"w": jnp.array([1.0, 5.0])})
    >>> float(penalty(held, {"w": jnp.array([4.0, 0.0])}, 0.5))
    4.5
    """
    terms = jax.tree.map(
        lambda f, a, w: (f * (w - a) ** 2).sum(), held.fisher, held.anchor, params
    )
    return strength / 2 * sum(jax.tree.leaves(terms))


@functools.partial(jax.jit, static_argnames="config")
def _squares(config, params, batch):
    one = lambda p, *row: label_losses(config, p, *(x[None] for x in row))[0]
    grads = jax.vmap(jax.grad(one), in_axes=(None, 0, 0, 0))(params, *batch)
    return jax.tree.map(lambda g: (g**2).sum(axis=0), grads)


def fisher_of(config: ModelConfig, params: Any, batches: Iterable[Batch]) -> Any:
    """Mean over examples of the squared gradient of the log-probability of their class."""
    total, count = jax.tree.map(jnp.zeros_like, params), 0
    for batch in batches:
        found = _squares(config, params, (batch.ids_NT, batch.last_N, batch.label_N))
        total = jax.tree.map(jnp.add, total, found)
        count += len(batch.label_N)
    return jax.tree.map(lambda f: f / count, total)
