"""hope_jax: nested learning and HOPE in JAX.

Dimension key, used as a suffix of every array of rank two or more and as einsum letters:

    B batch        T time          C chunk length    N chunks
    D model width  H heads         K key/query size  V value size
    F hidden       W vocabulary    L layers          M memories
    Z hidden units of all memories together
"""

import importlib

__version__ = "0.1.0"

__all__ = ["Stream", "__version__", "convert", "export", "load"]


_LAZY = {
    "Stream": "hope_jax.streams",
    "convert": "hope_jax.pretrained",
    "export": "hope_jax.checkpoint.export",
    "load": "hope_jax.checkpoint.load",
}


def __getattr__(name: str):
    """Import what needs JAX only when it is asked for: `hope --help` must be fast."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
