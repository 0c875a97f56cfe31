"""Checks of what the optimizers are given. Hyperparameters that are traced pass unchecked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from hope_jax.nested.paths import flatten
from hope_jax.optim.matrices import Dims, by_path, matrix_view


def nonnegative(rule: str, **values: Any) -> None:
    """Raise unless all numbers are at least zero, as far as they are known.

    >>> nonnegative("trace", decay=-1)
    Traceback (most recent call last):
    ValueError: trace: decay is -1; use a number from 0
    """
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) >= 0):
            raise ValueError(f"{rule}: {name} is {value}; use a number from 0")


def fraction(rule: str, **values: Any) -> None:
    """Raise unless all numbers are from 0 to 1, as far as they are known."""
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer):
            continue
        if not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
            raise ValueError(f"{rule}: {name} is {value}; use a number from 0 to 1")


def average(rule: str, **values: Any) -> None:
    """Raise unless all numbers are from 0 and below 1, as far as they are known.

    An average with a factor of one stays at zero for good.
    """
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer):
            continue
        if not np.all((np.asarray(value) >= 0) & (np.asarray(value) < 1)):
            raise ValueError(f"{rule}: {name} is {value}; use a number from 0, less than 1")


def whole(rule: str, **values: Any) -> None:
    """Raise unless all are whole numbers from 1, known before anything is traced.

    >>> whole("memory", hidden=0)
    Traceback (most recent call last):
    ValueError: memory: hidden is 0; use a whole number from 1
    """
    for name, value in values.items():
        if isinstance(value, (jax.Array, np.ndarray)):
            raise ValueError(
                f"{rule}: {name} is an array, but it fixes shapes or loops; name it in "
                f"static_args of optax.inject_hyperparams"
            )
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{rule}: {name} is {value!r}; use a whole number from 1")


def one_of(rule: str, name: str, value: Any, options: Iterable[str]) -> None:
    """Raise unless `value` is one of the options."""
    options = tuple(options)
    if not isinstance(value, str) or value not in options:
        known = ", ".join(map(repr, options))
        raise ValueError(f"{rule}: {name} is {value!r}; use one of {known}")


def matrices(rule: str, dims: Dims, tree: Any) -> None:
    """Raise unless every leaf is a matrix in the sense of `hope_jax.optim.matrices`."""
    axes = by_path(dims, tree)
    for path, leaf in flatten(tree).items():
        matrix_view(rule, path, leaf.shape, axes[path])
