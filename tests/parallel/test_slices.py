"""Product names of TPU slices."""

import subprocess
import sys

import pytest

from hope_jax.parallel import slices
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
        ("v5e-300", "sizes are v5e-64, v5e-128, v5e-256;"),
        ("v5p-20000", "sizes are v5p-4096, v5p-8192, v5p-16384;"),
        ("v5p:3x3x3", "27 chips, which hosts of 4 chips do not make"),
        ("v5e:3x5", "15 chips, which hosts of 4 chips do not make"),
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


def program(*words):
    """The file as a program, on a Python that has no packages."""
    return subprocess.run(
        [sys.executable, "-S", slices.__file__, *words], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "name, machine, vm, runtime",
    [
        ("v4-16", "ct4p-hightpu-4t", "v4-16", "tpu-ubuntu2204-base"),
        ("v5e-1", "ct5lp-hightpu-1t", "v5litepod-1", "v2-alpha-tpuv5-lite"),
        ("v5e-64", "ct5lp-hightpu-4t", "v5litepod-64", "v2-alpha-tpuv5-lite"),
        ("v5p:4x4x8", "ct5p-hightpu-4t", "v5p-256", "v2-alpha-tpuv5"),
        ("v6e-8", "ct6e-standard-8t", "v6e-8", "v2-alpha-tpuv6e"),
        ("tpu7x-128", "tpu7x-standard-4t", "", ""),
    ],
)
def test_scripts_get_all_they_need_without_jax(name, machine, vm, runtime):
    done = program(name)
    assert done.returncode == 0, done.stderr
    facts = dict(line.split("=") for line in done.stdout.splitlines())
    found = find_slice(name)
    assert facts == {
        "SLICE": found.name,
        "TOPOLOGY": found.grid,
        "CHIPS": str(found.chips),
        "HOSTS": str(found.hosts),
        "CHIPS_PER_HOST": str(found.chips_per_host),
        "DEVICES": str(found.devices),
        "ACCELERATOR": found.chip.accelerator,
        "MACHINE": machine,
        "VM_TYPE": vm,
        "VM_RUNTIME": runtime,
    }


def test_every_row_of_the_table_is_a_slice_as_it_says():
    lines = program("--table").stdout.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    head = next(i for i, row in enumerate(rows) if row[0] == "slice")
    assert len(rows) - head > 40
    for name, grid, hosts, each, chips, devices, machine in rows[head + 2 :]:
        found = find_slice(name)
        assert find_slice(f"{name.split('-')[0]}:{grid}") == found
        assert (int(hosts), int(chips), int(devices)) == (
            found.hosts,
            found.chips,
            found.devices,
        )
        assert int(hosts) * int(each) == int(chips) and machine.endswith(f"-{each}t")


@pytest.mark.parametrize("words", [[], ["v5e-16", "v5e-32"], ["v5e-17"]])
def test_as_a_program_it_says_what_is_wrong_in_one_line(words):
    done = program(*words)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
