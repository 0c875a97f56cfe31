"""Where every array of a run lives on the mesh."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hope_jax.nested.paths import flatten, nest, path_name
from hope_jax.parallel.rules import spec

WORTH_SPLITTING = 4_096  # values; an array that no rule speaks of is replicated below


class NamedAxes(Protocol):
    """Shape of an array and the logical name of each axis."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]


def param_shardings(params: Mapping[str, NamedAxes], mesh: Mesh) -> Any:
    """Tree of the shardings of parameters, by their logical axes.

    An axis "memory" that the mesh does not divide stays whole: it is one of a head, and
    narrow where `fsdp` is large. All others must be divided.

    Args:
      params: by path, as `hope_jax.models.param_shapes` gives.
      mesh: from `make_mesh`.

    Raises:
      ValueError: an axis that the mesh does not divide, or names that `rules.spec` refuses.
    """
    places = {}
    for path, param in params.items():
        parts = spec(param.axes, path)
        places[path] = NamedSharding(mesh, _divided(path, param, parts, mesh))
    return nest(places)


def state_shardings(state: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings of what is kept beside parameters: sums of gradients, optimizer states.

    A leaf whose path ends with that of a parameter and that has its shape lies where the
    parameter does. Others of some size, such as the weights of a learned momentum, are
    split over `fsdp` along the longest axis that it divides; the rest is replicated.

    Args:
      state: tree of arrays or shapes.
      params: parameters or their shapes.
      shardings: of `params`, from `param_shardings`.
      mesh: the mesh.
    """
    shapes = {path: leaf.shape for path, leaf in flatten(params).items()}
    places = flatten(shardings)

    def place(keys, leaf) -> NamedSharding:
        parts = path_name(keys).split("/")
        for first in range(len(parts)):
            path = "/".join(parts[first:])
            if shapes.get(path) == leaf.shape:
                return places[path]
        return NamedSharding(mesh, _longest_axis(leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(place, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch, over all devices but those along `tensor`."""
    return NamedSharding(mesh, spec(("batch",)))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def bytes_per_device(tree: Any, shardings: Any) -> int:
    """Bytes that arrays of these shapes take on one device."""
    sizes = jax.tree.map(
        lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, tree, shardings
    )
    return sum(jax.tree.leaves(sizes))


def _divided(path: str, param: NamedAxes, parts: PartitionSpec, mesh: Mesh) -> PartitionSpec:
    kept = []
    for size, axis, place in zip(param.shape, param.axes, parts, strict=True):
        fits = place is None or size % mesh.shape[place] == 0
        if not fits and axis != "memory":
            count = mesh.shape[place]
            pad = f"set model.vocab_multiple={128 * count}, which pads it (for a new run)"
            change = pad if axis == "vocab" else "change that width of the model"
            raise ValueError(
                f"{path}: {size} along {axis!r} cannot be split in {count}; choose a "
                f"mesh.{place} that divides {size}, or {change}"
            )
        kept.append(place if fits else None)
    return PartitionSpec(*kept)


def _longest_axis(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    parts = mesh.shape["fsdp"]
    fitting = [i for i, size in enumerate(shape) if size % parts == 0]
    if math.prod(shape) < WORTH_SPLITTING or not fitting:
        return PartitionSpec()
    axis = max(fitting, key=lambda i: shape[i])
    return PartitionSpec(*("fsdp" if i == axis else None for i in range(len(shape))))
