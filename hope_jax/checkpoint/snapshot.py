"""What a checkpoint holds, and the names it has on disk.

    checkpoints/<step>/
        slow/            the slow weights
        level_<name>/    one level's optimizer state, a folder per level
        loop/            counters of the training loop
        position/        where the data stream stands (JSON)
        config/          configuration, versions, tokenizer (JSON)
        contents/        step; shape, dtype and checksum of every array; format number (JSON)

Array items are stored as flat dictionaries from path to array, so that what is on disk
does not depend on the Python types of a state.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

FORMAT = 1
LEVEL = "level_"
MEMORY = "opt_state/"
JSON_ITEMS = ("position", "config", "contents")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Everything that a run needs to go on from `step`.

    Attributes:
      step: training steps done.
      slow: pytree of the slow weights.
      levels: level name -> pytree of that level's optimizer state.
      loop: pytree of counters of the training loop.
      position: JSON-able position of the data stream after batch number `step`.
      config: JSON-able description of the run.
    """

    step: int
    slow: Any
    levels: dict[str, Any]
    loop: Any
    position: Any
    config: dict[str, Any]

    def array_items(self) -> dict[str, dict[str, Any]]:
        """Item name -> path -> array. Items without arrays are left out."""
        items = {"slow": self.slow, "loop": self.loop}
        items |= {LEVEL + name: state for name, state in self.levels.items()}
        flat = {name: flatten(tree) for name, tree in items.items()}
        return {name: arrays for name, arrays in flat.items() if arrays}


def flatten(tree: Any) -> dict[str, Any]:
    """Path -> leaf, with `/` between the parts of a path; arrays of no size are left out."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves if leaf.size}


def unflatten(like: Any, arrays: dict[str, Any]) -> Any:
    """A tree of the structure of `like` with its leaves taken from `arrays`.

    Of what `arrays` lacks, the leaves of `like` remain.
    """

    def pick(path, leaf):
        return arrays.get(_name(path), leaf) if leaf.size else jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(pick, like)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def nest(arrays: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries from `a/b/c` paths: the slow weights without a model at hand."""
    tree: dict[str, Any] = {}
    for path, leaf in arrays.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
