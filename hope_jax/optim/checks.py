"""Checks of what the optimizers are given. Hyperparameters that are traced pass unchecked."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def nonnegative(rule: str, **values: Any) -> None:
    """Raise unless all numbers are at least zero, as far as they are known.

    >>> nonnegative("trace", decay=-1)
    Traceback (most recent call last):
    ValueError: trace: decay is -1; use a number from 0
    """
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) >= 0):
            raise ValueError(f"{rule}: {name} is {value}; use a number from 0")
