"""Recurrences on a mesh: every device runs its own rows and heads, and nothing crosses.

A recurrence treats rows and heads alike and apart from each other. Left to the compiler, a
scan over chunks may all the same end up split along some other axis, because its state begins
as weights that are, and then devices talk at every chunk; gradients of initial weights are
summed over devices at every chunk too. Here the whole scan is local, and such a gradient is
summed once, when it leaves.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

from hope_jax.parallel.rules import axes_of, parts


@dataclasses.dataclass(frozen=True)
class Split:
    """Which axes of arrays are rows of a batch and heads (or channels); None: they have none.

    An axis of size 1, and one that an array is too small to have, is not split.
    """

    rows: int | None
    heads: int | None


WHOLE = Split(None, None)
WEIGHTS = Split(None, 0)  # [H, ...]
ROWS = Split(0, None)  # [B, ...]
BY_HEAD = Split(0, 1)  # [B, H, ...]
BY_TIME = Split(0, 2)  # [B, T, H, ...]


def on_each_device(
    function: Callable[..., Any], arguments: tuple[Any, ...], results: Any
) -> Callable[..., Any]:
    """`function` with rows and heads shared by the devices of the mesh; itself without one.

    Where the devices cannot share rows or heads equally, the compiler decides.

    Args:
      function: of trees of arrays to a tree of arrays, in which rows are independent of each
        other, and heads as well.
      arguments: `Split` of each argument, or a tree of them.
      results: the same for the result.
    """
    mesh = jax.sharding.get_abstract_mesh()
    over = {"rows": places("batch"), "heads": places("heads")}
    count = {k: parts(mesh, axes) for k, axes in over.items()}
    if math.prod(count.values()) == 1:
        return function

    def split(leaf: jax.Array, how: Split) -> dict[int, str]:
        """Axis -> "rows" or "heads", of those that are split."""
        axes = {how.rows: "rows", how.heads: "heads"}
        there = lambda a: a is not None and a < leaf.ndim and leaf.shape[a] > 1
        return {a: k for a, k in axes.items() if there(a)}

    def spec(leaf: jax.Array, how: Split) -> PartitionSpec:
        axes = split(leaf, how)
        return PartitionSpec(*(over[axes[a]] if a in axes else None for a in range(leaf.ndim)))

    def fits(leaf: jax.Array, how: Split) -> bool:
        return all(leaf.shape[a] % count[k] == 0 for a, k in split(leaf, how).items())

    def run(*args):
        how = jax.tree.broadcast(arguments, args)
        if not all(jax.tree.leaves(jax.tree.map(fits, args, how))):
            return function(*args)
        shapes = jax.eval_shape(function, *args)
        return jax.shard_map(
            function,
            in_specs=jax.tree.map(spec, args, how),
            out_specs=jax.tree.map(spec, shapes, jax.tree.broadcast(results, shapes)),
            axis_names={axis for axes in over.values() for axis in axes},
            check_vma=False,
        )(*args)

    return run


def places(name: str) -> tuple[str, ...]:
    """Axes of the mesh that a logical axis is split over."""
    return axes_of(dict(nn.get_logical_axis_rules()).get(name))
