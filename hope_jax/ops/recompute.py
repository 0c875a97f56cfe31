"""Element-wise work that the backward pass does again instead of reading it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, of which the backward pass keeps the arguments and nothing else.

    For norms, gates and short convolutions: each leaves several arrays as large as the
    activations to be written, kept and read, which costs more than computing them twice.
    A matrix product whose result only leaves the function is not computed again.
    """
    # layers are scanned, so nothing merges the two computations; where layers are unrolled
    # a merge saves time
    return jax.checkpoint(function, prevent_cse=False)
