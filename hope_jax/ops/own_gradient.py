"""Gradients written by hand, and how to do without them where they are differentiated again.

A hand-written backward pass is not differentiated again here: attention's has loops whose
length is data, and JAX hands others their residuals in the wrong order inside a scan, where one
of them does not change from turn to turn (seen in 0.10 and 0.12). Within `plain_gradients`
functions are left to automatic differentiation, which may be repeated.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

_plain = contextvars.ContextVar("plain_gradients", default=False)


@contextlib.contextmanager
def plain_gradients(wanted: bool = True) -> Iterator[None]:
    """While tracing in it, functions with a gradient of their own are differentiable twice.

    >>> import jax.numpy as jnp
    >>> @own_gradient
    ... def double(x):
    ...     return 2 * x
    >>> double.defvjp(lambda x: (2 * x, None), lambda _, dy: (7 * dy,))
    >>> float(jax.grad(double)(1.0))
    7.0
    >>> with plain_gradients():
    ...     float(jax.grad(double)(1.0))
    2.0
    """
    token = _plain.set(wanted)
    try:
        yield
    finally:
        _plain.reset(token)


def plain_gradients_wanted() -> bool:
    """Whether the code that is traced now will be differentiated twice."""
    return _plain.get()


class own_gradient:
    """`jax.custom_vjp`, but within `plain_gradients` the function as it is written."""

    def __init__(self, function: Callable[..., Any]):
        functools.update_wrapper(self, function)
        self._function = function
        self._custom = jax.custom_vjp(function)

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """As of `jax.custom_vjp`."""
        self._custom.defvjp(forward, backward)

    def __call__(self, *args: Any) -> Any:
        return (self._function if plain_gradients_wanted() else self._custom)(*args)
