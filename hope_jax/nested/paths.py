"""Parts of parameter trees, addressed by paths such as "blocks/cms/period_8/w_in"."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax

Selector = Callable[[str], bool] | str | tuple[str, ...] | None


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves of any pytree by path, in the order of `jax.tree.leaves`."""
    return {path_name(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def path_name(keys: Any) -> str:
    """A path of JAX as text, e.g. "blocks/cms/period_8/w_in"."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def nest(leaves: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts of `leaves`: the inverse of `flatten` for trees of dicts.

    >>> nest({"a/x": 1, "a/y": 2, "b": 3})
    {'a': {'x': 1, 'y': 2}, 'b': 3}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree


def union(a: Any, b: Any) -> dict[str, Any]:
    """One nested dict with the leaves of both."""
    return nest({**flatten(a), **flatten(b)})


def pick(tree: Any, like: Any) -> dict[str, Any]:
    """The leaves of `tree` at the paths that `like` has."""
    leaves = flatten(tree)
    return nest({path: leaves[path] for path in flatten(like)})


def matches(selector: Selector, path: str) -> bool:
    """Whether a selector that is not `None` takes the parameter at `path`.

    A string is a regular expression that has to match whole path components from the
    start, so that a plain path takes everything below it.

    >>> matches("blocks/cms", "blocks/cms/w_in"), matches("blocks/cms", "blocks/cms_norm")
    (True, False)
    >>> matches(r".*/period_8", "blocks/cms/period_8/w_in")
    True
    """
    if callable(selector):
        return bool(selector(path))
    patterns = (selector,) if isinstance(selector, str) else selector
    return any(re.match(rf"(?:{pattern})(?:/|$)", path) for pattern in patterns)
