"""Which axis of the mesh each logical axis of an array is split over.

Layers name the axes of their parameters and activations; this table alone says what the
names mean on a mesh. A name that is not in it is a mistake, not "replicate".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jax.sharding import AbstractMesh, Mesh, PartitionSpec

AXES = ("data", "fsdp", "tensor")

RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("batch", ("data", "fsdp")),
    ("time", None),
    ("layers", None),
    # Weights and all that is kept for them: one axis of each is split over fsdp ...
    ("embed", "fsdp"),
    ("memory", "fsdp"),  # of weights of a head, which have no axis of the model's width
    # ... and one over tensor, as are the activations that they make.
    ("vocab", "tensor"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("head_dim", None),
    ("hidden", None),
)


def axes_of(place: str | Sequence[str] | None) -> tuple[str, ...]:
    """Axes of the mesh that a place of a `PartitionSpec` names.

    >>> axes_of("fsdp"), axes_of(None)
    (('fsdp',), ())
    """
    return (place,) if isinstance(place, str) else tuple(place or ())


def parts(mesh: Mesh | AbstractMesh, place: str | Sequence[str] | None) -> int:
    """In how many parts a dimension is that is split over `place`; axes not there count 1."""
    return math.prod(mesh.shape.get(axis, 1) for axis in axes_of(place))


def spec(names: Sequence[str | None], what: str = "an array") -> PartitionSpec:
    """Partition of an array with these logical axes.

    Args:
      names: one per dimension; None: not split.
      what: the array, for messages.

    Raises:
      ValueError: an unknown name, or two dimensions on one axis of the mesh.

    >>> spec(("embed", "heads", "head_dim"))
    P('fsdp', 'tensor', None)
    """
    table = dict(RULES)
    unknown = [name for name in names if name is not None and name not in table]
    if unknown:
        raise ValueError(
            f"{what} has the logical axis {unknown[0]!r}, which hope_jax/parallel/rules.py "
            f"does not know; use one of {', '.join(table)}, or add it there"
        )
    places = [None if name is None else table[name] for name in names]
    taken: dict[str, str | None] = {}
    for name, place in zip(names, places, strict=True):
        for axis in axes_of(place):
            if axis in taken:
                raise ValueError(
                    f"{what} has axes {taken[axis]!r} and {name!r}, and both are split over "
                    f"{axis!r}; give one of them another name"
                )
            taken[axis] = name
    return PartitionSpec(*places)
