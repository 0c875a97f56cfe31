"""Product names of TPU slices."""

import pytest

from hope_jax.parallel.slices import CHIPS, find_slice


@pytest.mark.parametrize(
    "name, grid, chips, hosts, devices",
    [
        ("v4-8", "2x2x1", 4, 1, 4),
        ("v4-4096", "8x16x16", 2048, 512, 2048),
        ("v5e-1", "1x1", 1, 1, 1),
        ("v5e-4", "2x2", 4, 1, 4),
        ("v5e-8", "2x4", 8, 1, 8),
        ("v5e-16", "4x4", 16, 4, 16),
        ("v5e-32", "4x8", 32, 8, 32),
        ("v5e-256", "16x16", 256, 64, 256),
        ("v5p-8", "2x2x1", 4, 1, 4),
        ("v5p-16", "2x2x2", 8, 2, 8),
        ("v5p-64", "2x4x4", 32, 8, 32),
        ("v5p-256", "4x4x8", 128, 32, 128),
        ("v5p-1024", "8x8x8", 512, 128, 512),
        ("v6e-64", "8x8", 64, 16, 64),
        ("tpu7x-128", "4x4x4", 64, 16, 128),
    ],
)
def test_sizes(name, grid, chips, hosts, devices):
    found = find_slice(name)
    assert (found.grid, found.chips, found.hosts, found.devices) == (
        grid,
        chips,
        hosts,
        devices,
    )
    assert found.name == name
    assert found.hosts * found.chips_per_host == found.chips


@pytest.mark.parametrize(
    "other, name",
    [
        ("v5litepod-16", "v5e-16"),
        ("V5P-64", "v5p-64"),
        ("v5p:4x4x12", "v5p-384"),
        ("v5e:8x8", "v5e-64"),
        ("v5:2x2x1", "v5p-8"),
    ],
)
def test_other_names_of_slices(other, name):
    assert find_slice(other).name == name


@pytest.mark.parametrize(
    "name, said",
    [
        ("v5e", "give a product name such as v5e-64"),
        ("v9-8", "no TPU 'v9'; the generations are v4, v5e, v5p, v6e, tpu7x"),
        ("v5e-3", "counts chips, and the nearest sizes are v5e-1, v5e-4, v5e-8.*v5e:AxB"),
        ("v5p-10", "counts cores, two a chip.*v5p-8, v5p-16"),
        ("v5p:4x4", "has 3 dimensions, such as 4x4x4"),
        ("v5e-1024", "1024 chips; the largest slice of v5e has 256. Use several"),
    ],
)
def test_what_is_not_there_is_refused(name, said):
    with pytest.raises(ValueError, match=said):
        find_slice(name)


def test_names_of_chips_are_their_own():
    names = [name for chip in CHIPS for name in (chip.name, *chip.aliases)]
    assert len(names) == len(set(names))
