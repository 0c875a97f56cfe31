"""Which parameters decay."""

from __future__ import annotations

from typing import Any

import jax

from hope_jax.nested.paths import flatten

# Arrays that are vectors by meaning, whatever their rank (one per head, say).
_NOT_MATRICES = ("bias", "scale", "norm")


def decays(params: Any) -> Any:
    """Which parameters decay: matrices, among them initial states of memories.

    Scales of norms and biases do not. Parameters below `blocks` are stacked over layers;
    that leading axis does not count.

    >>> leaf = jax.ShapeDtypeStruct((4, 8), "float32")
    >>> decays({"embed": {"table": leaf}, "blocks": {"norm": {"scale": leaf}}})
    {'blocks': {'norm': {'scale': False}}, 'embed': {'table': True}}
    """

    def decay(path: str, leaf: Any) -> bool:
        *folders, name = path.split("/")
        rank = leaf.ndim - ("blocks" in folders)
        return rank >= 2 and not any(word in name for word in _NOT_MATRICES)

    return jax.tree.unflatten(
        jax.tree.structure(params),
        [decay(path, leaf) for path, leaf in flatten(params).items()],
    )
