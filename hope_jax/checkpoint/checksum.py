"""Checksums of arrays, computed where the arrays live.

The sum runs over the bit pattern, so it does not depend on rounding, on the order of
summation, on the sharding or on the number of devices: a checkpoint written on a pod can
be checked in a notebook.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def checksums(arrays: dict[str, Any]) -> dict[str, int]:
    """Checksum of each array: sum of (2 i + 1) * word_i mod 2^32 over its words.

    The odd weights make any change of a single word visible, and swapped words too.
    """
    sums = {name: _checksum(x) for name, x in arrays.items()}
    return {name: int(value) for name, value in jax.device_get(sums).items()}


def _checksum(x) -> Any:
    if isinstance(x, np.ndarray):
        return on_host(x)
    near = x.is_fully_addressable and all(d.platform == "cpu" for d in x.devices())
    return on_host(np.asarray(x)) if near else on_device(x)


@jax.jit
def on_device(x: jax.Array) -> jax.Array:
    """The sum where the array is: on accelerators, and over processes."""
    if x.dtype == jnp.bool_:
        words = x.astype(jnp.uint32)
    else:
        bits = min(8 * x.dtype.itemsize, 32)
        words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)
    # places in the flat array, without flattening: that would gather its parts
    place = jnp.zeros(words.shape, jnp.uint32)
    step = 1
    for axis in reversed(range(words.ndim)):
        place += np.uint32(step) * jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        step = step * words.shape[axis] % 2**32
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)


def on_host(x: np.ndarray) -> np.uint32:
    """The sum in host memory, without a compilation."""
    bits = min(8 * x.dtype.itemsize, 32)
    if x.dtype == np.bool_:
        words = x.astype(np.uint32)
    else:
        words = np.ascontiguousarray(x).view(f"uint{bits}").astype(np.uint32)
    weights = 2 * np.arange(words.size, dtype=np.uint32) + 1
    return np.sum(words.reshape(-1) * weights, dtype=np.uint32)
