"""The grid of devices that a run uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from hope_jax.config import MeshConfig
from hope_jax.parallel.rules import AXES, RULES, parts


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh with axes `data`, `fsdp`, `tensor`, laid out for the network between devices.

    Only `data` crosses slices. One process with one slice uses the first devices alone where
    the configuration names `fsdp` (`data` is then one unless it is named too) and the numbers
    need no more; of several processes, each would wait for the others.

    Args:
      config: the numbers.
      devices: those of all processes by default, or those of a topology to compile for.

    Raises:
      ValueError: the numbers do not fit the devices; see `MeshConfig.shape`.

    >>> dict(make_mesh(MeshConfig(), jax.devices()[:1]).shape)
    {'data': 1, 'fsdp': 1, 'tensor': 1}
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if jax.process_count() == 1 and slices == 1 and config.fsdp is not None:
        devices = devices[: (config.data or 1) * config.fsdp * config.tensor]
    shape = config.shape(len(devices), slices)
    if slices > 1:
        inside = (shape[0] // slices, *shape[1:])
        grid = mesh_utils.create_hybrid_device_mesh(
            inside, (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    elif devices[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = np.array(devices).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def one_device() -> Mesh:
    """A mesh of the first device."""
    return make_mesh(MeshConfig(data=1, fsdp=1))


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """Trace and run with this mesh; the model's logical axes mean its axes.

    A step that is traced outside does not see the model's constraints, silently.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield mesh


@contextlib.contextmanager
def within_a_copy() -> Iterator[None]:
    """Trace what one copy of the model does with its rows, in a `shard_map` over data."""
    with nn.logical_axis_rules([(n, "fsdp" if n == "batch" else place) for n, place in RULES]):
        yield


def batch_parts(mesh: Mesh) -> int:
    """In how many parts a batch is split."""
    return parts(mesh, dict(RULES)["batch"])


def describe_mesh(mesh: Mesh) -> str:
    """The grid in words.

    >>> describe_mesh(make_mesh(MeshConfig(data=1, fsdp=1)))
    'data 1 x fsdp 1 x tensor 1'
    """
    words = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    there = jax.device_count()
    rest = "" if mesh.size >= there or mesh.size == 1 else f" ({mesh.size} of {there} devices)"
    return words + rest
