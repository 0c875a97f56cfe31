"""Batches from the hosts that read them to the devices that share them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hope_jax.parallel.mesh import batch_parts
from hope_jax.parallel.placement import batch_sharding


def check_batch(rows: int, what: str, mesh: Mesh) -> None:
    """Raise `ValueError` unless the devices can share that many rows equally."""
    parts = batch_parts(mesh)
    if rows % parts:
        data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
        raise ValueError(
            f"{what} is {rows} rows, which mesh data {data} x fsdp {fsdp} = {parts} parts "
            f"cannot share equally; make it a multiple of {parts}, or split the model instead "
            "(mesh.tensor)"
        )


def local_rows(batch: int, mesh: Mesh) -> tuple[int, ...]:
    """Rows of a batch that devices of this process hold.

    Where a copy of the model spans processes, several of them hold the same rows.

    >>> import jax
    >>> from hope_jax.config import MeshConfig
    >>> from hope_jax.parallel import make_mesh
    >>> local_rows(4, make_mesh(MeshConfig(1, 1, 1)))
    (0, 1, 2, 3)
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch,))
    return tuple(sorted({row for (part,) in places.values() for row in range(batch)[part]}))


def place_batch(batch: dict[str, Any], rows: tuple[int, ...], total: int, mesh: Mesh) -> Any:
    """Arrays over all processes from this one's rows.

    Args:
      batch: arrays of which each row is one of `rows`, in order.
      rows: from `local_rows`.
      total: rows of the whole batch.
      mesh: the mesh.
    """
    sharding = batch_sharding(mesh)
    number = {row: i for i, row in enumerate(rows)}

    def place(x: np.ndarray) -> jax.Array:
        def part(index):
            wanted = range(total)[index[0]]
            return x[number[wanted[0]] : number[wanted[-1]] + 1]

        return jax.make_array_from_callback((total, *x.shape[1:]), sharding, part)

    return jax.tree.map(place, batch)
