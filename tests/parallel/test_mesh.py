"""Grids of devices: what they hold, and what is said when they do not fit."""

import jax
import pytest

from hope_jax.config import MeshConfig
from hope_jax.parallel import AXES, batch_parts, describe_mesh, make_mesh


@pytest.mark.parametrize(
    "config, devices, slices, shape",
    [
        (MeshConfig(), 1, 1, (1, 1, 1)),
        (MeshConfig(), 64, 1, (1, 64, 1)),
        (MeshConfig(tensor=4), 64, 1, (1, 16, 4)),
        (MeshConfig(tensor=4), 64, 2, (2, 8, 4)),
        (MeshConfig(data=8, tensor=2), 64, 4, (8, 4, 2)),
        (MeshConfig(data=2, fsdp=4, tensor=8), 64, 1, (2, 4, 8)),
    ],
)
def test_what_is_left_open_is_filled_in(config, devices, slices, shape):
    assert config.shape(devices, slices) == shape


@pytest.mark.parametrize(
    "config, devices, slices, said",
    [
        (MeshConfig(tensor=3), 8, 1, "tensor 3 is 6 devices, and there are 8"),
        (MeshConfig(tensor=16), 8, 1, "tensor 16 is 16 devices, and there are 8"),
        (MeshConfig(data=2, fsdp=2), 8, 1, "is 4 devices, and there are 8.*leave mesh.fsdp at"),
        (MeshConfig(data=3), 8, 1, "there are 8; choose data and tensor whose product divides"),
        (MeshConfig(data=3), 8, 2, "not a multiple of the 2 slices"),
    ],
)
def test_what_does_not_fit_is_refused(config, devices, slices, said):
    with pytest.raises(ValueError, match=said):
        config.shape(devices, slices)


@pytest.mark.parametrize("field", ["data", "fsdp", "tensor"])
def test_numbers_below_one_are_refused(field):
    with pytest.raises(ValueError, match=f"mesh.{field} is 0; use at least 1"):
        MeshConfig(**{field: 0})


def test_a_mesh_of_all_devices_or_of_some():
    everything = make_mesh(MeshConfig(tensor=2))
    assert everything.axis_names == AXES
    assert dict(everything.shape) == {"data": 1, "fsdp": 4, "tensor": 2}
    assert batch_parts(everything) == 4
    assert describe_mesh(everything) == "data 1 x fsdp 4 x tensor 2"
    some = make_mesh(MeshConfig(data=2, fsdp=1))
    assert [d.id for d in some.devices.flat] == [0, 1]
    assert describe_mesh(some) == "data 2 x fsdp 1 x tensor 1 (2 of 8 devices)"
    assert dict(make_mesh(MeshConfig(fsdp=4)).shape) == {"data": 1, "fsdp": 4, "tensor": 1}
    with pytest.raises(ValueError, match="is 16 devices, and there are 8"):
        make_mesh(MeshConfig(fsdp=16))
    assert make_mesh(MeshConfig(), jax.devices()[:2]).size == 2
