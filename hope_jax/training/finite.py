"""Steps that are not finite: which tensor went first."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def first_bad(tensors: dict[str, Any]) -> jax.Array:
    """Index of the first tensor with a value that is not finite, in order; -1 if none.

    Args:
      tensors: label -> pytree, in the order in which a step computes them.
    """
    leaves = [leaf for tree in tensors.values() for leaf in jax.tree.leaves(tree)]
    bad = jnp.stack([~jnp.isfinite(leaf).all() for leaf in leaves])
    return jnp.where(bad.any(), jnp.argmax(bad), -1)


def names(tensors: dict[str, Any]) -> list[str]:
    """Readable name of every tensor, in the order of `first_bad`.

    >>> names({"parameter": {"w": 0.0, "x": {"b": 0.0}}, "loss": 0.0})
    ['parameter w', 'parameter x/b', 'loss']
    """
    return [
        f"{label} {jax.tree_util.keystr(path, simple=True, separator='/')}".strip()
        for label, tree in tensors.items()
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


class NonFinite(ValueError):
    """Training stopped: too many steps in a row were not finite."""


class BadSteps:
    """Counts the steps that were not finite, and stops the run after `limit` in a row."""

    def __init__(self, limit: int, tensor_names: list[str]):
        self._limit = limit
        self._names = tensor_names
        self._first: tuple[int, str] | None = None
        self.streak = 0

    def see(self, step: int, bad_tensor: int) -> str | None:
        """Take in the outcome of a step; the name of the tensor that went first, if any."""
        if bad_tensor < 0:
            self.streak, self._first = 0, None
            return None
        self.streak += 1
        name = self._names[bad_tensor]
        self._first = self._first or (step, name)
        return name

    def check(self) -> None:
        """Raise `NonFinite` if the last `limit` steps were all bad."""
        if self.streak < self._limit:
            return
        first, name = self._first
        raise NonFinite(
            f"{self.streak} steps in a row were not finite and were skipped; the first was "
            f"step {first}, where the {name} went first. Lower optim.lr or "
            "model.mixer.max_rate, or set optim.clip"
        )
