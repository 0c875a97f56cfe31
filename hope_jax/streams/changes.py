"""Which level changed by how much."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hope_jax.config import ModelConfig
from hope_jax.layers.fast_weights import Weights, moving
from hope_jax.models.in_context import Reader
from hope_jax.nested.paths import flatten, path_name


@dataclasses.dataclass(frozen=True)
class Change:
    """How far the matrices of a CMS level are from others.

    Attributes:
      slow: norm of the difference of the slow weights, as a fraction of their norm.
      fast: norm of the difference of the fast weights, as a fraction of the same.
      total: of their sums.
    """

    slow: float
    fast: float
    total: float


def level_changes(
    config: ModelConfig,
    params: Any,
    fast: Weights | None,
    other_params: Any,
    other_fast: Weights | None = None,
) -> dict[int, Change]:
    """Changes of every CMS level, by its period.

    Of a stack, whose blocks all have one period, by tokens per update; 0 stands for the blocks
    that do not change within a text.

    Args:
      config: of the model, which says what the fast weights are.
      params: slow weights.
      fast: fast weights `[blocks, 1, ...]` of one stream; None: there are none.
      other_params: slow weights to compare with.
      other_fast: fast weights to compare with.
    """
    here = _added(config, params, fast)
    there = _added(config, other_params, other_fast)
    found = {}
    for key, part, blocks, names in _levels(config):
        new, old = (_matrices(p, part, blocks) for p in (params, other_params))
        size = float(optax.tree.norm(old))
        slow = jax.tree.map(jnp.subtract, new, old)
        change = {name: jnp.zeros_like(w) for name, w in slow.items()}
        for sign, added in ((1, here), (-1, there)):
            for name, matrix in added.get(names, {}).items():
                change[name] = change[name].at[-len(matrix) :].add(sign * matrix[:, 0])
        whole = jax.tree.map(jnp.add, slow, change)
        norms = (float(optax.tree.norm(tree)) / size for tree in (slow, change, whole))
        found[key] = Change(*norms)
    return found


def _levels(config: ModelConfig) -> list[tuple[int, str, np.ndarray, str]]:
    """Of each level: its key, its part of a block, the blocks that have it, its fast weights.

    Where fewer blocks change within a text than have the level, they are the last.
    """
    everywhere = np.arange(config.depth)
    if not config.cms.in_context.stacked:
        parts = [(period, f"period_{period}") for period in config.cms.periods]
        return [(period, part, everywhere, part) for period, part in parts]
    first = config.depth - config.cms.in_context.adapting(config.depth)
    (part,) = {level.part for level in moving(config).values()}
    found = [(0, part, everywhere[:first], "")] if first else []
    for name, level in moving(config).items():
        found.append((level.chunk, part, first + np.array(level.blocks), name))
    return found


def table(changes: dict[int, Change]) -> str:
    """For a terminal."""
    lines = [" level   slow weights   fast weights      together"]
    for period, change in changes.items():
        numbers = "".join(f"{100 * x:13.3f} %" for x in dataclasses.astuple(change))
        lines.append(f"{period:>6}{numbers}")
    return "\n".join(lines)


def changed(params: Any, base: Any) -> dict[str, np.ndarray]:
    """Arrays of `params` that are not bit for bit those of `base`, by path."""
    there = flatten(base)
    return {
        path: np.asarray(new)
        for path, new in flatten(params).items()
        if new is not there[path] and not np.array_equal(new, there[path])
    }


def apply_changes(base: Any, arrays: dict[str, np.ndarray]) -> Any:
    """`base` with these arrays in place of its own.

    Raises:
      ValueError: an array that `base` does not have.
    """
    left = dict(arrays)

    def put(path, old):
        name = path_name(path)
        new = left.pop(name, None)
        if new is None:
            return old
        if new.shape != old.shape:
            raise ValueError(f"{name} has shape {new.shape}, and the model has {old.shape}")
        return jnp.asarray(new)

    params = jax.tree_util.tree_map_with_path(put, base)
    if left:
        raise ValueError(f"the model has no {', '.join(left)}")
    return params


def _matrices(params: Any, part: str, blocks: np.ndarray) -> dict[str, jax.Array]:
    level = params["blocks"]["cms"][part]
    return {name: w[blocks] for name, w in level.items() if name.startswith("w_")}


def _added(config: ModelConfig, params: Any, fast: Weights | None) -> Weights:
    return {} if fast is None else Reader(config, params).whole(fast)
