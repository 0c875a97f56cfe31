"""hope_jax: nested learning and HOPE in JAX.

Dimension key, used as a suffix of every array of rank two or more and as einsum letters:

    B batch        T time          C chunk length    N chunks
    D model width  H heads         K key/query size  V value size
    F hidden       W vocabulary    L layers          M memories
    Z hidden units of all memories together
"""

__version__ = "0.1.0"

__all__ = ["__version__", "load"]


def __getattr__(name: str):
    """Import what needs JAX only when it is asked for: `hope --help` must be fast."""
    if name == "load":
        from hope_jax.checkpoint.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
