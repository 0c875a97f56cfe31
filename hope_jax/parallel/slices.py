"""TPU slices by their product names: what they hold, and what a chip can do.

Sources: the vendor's pages on each generation (peak, bandwidth, chips per host, names of
machines); the memory that a program may use is what the compiler reports for one device.

As a program it answers the scripts in launch/, on any Python and without JAX:

    python3 hope_jax/parallel/slices.py v5p-256    # variables for a shell
    python3 hope_jax/parallel/slices.py --table    # the tables in launch/README.md
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation.

    Attributes:
      name: in product names.
      aliases: other names for it.
      dims: of the network, 2 or 3.
      counted: what the number of a product name counts per chip: 1 for chips, 2 for cores.
      devices: JAX devices per chip.
      hbm: bytes that a program may use on one device.
      flops: bfloat16 peak of a chip, FLOP/s.
      bandwidth: of a chip's memory, bytes/s.
      largest: chips in the largest slice.
      accelerator: name in the node labels of Kubernetes.
      kinds: parts of the `device_kind` that JAX gives, in small letters or not.
      machine: type of a host on GKE and Compute Engine, without the number of its chips.
      vm: name in the accelerator types of TPU VMs; none where there are no TPU VMs.
      runtime: software version of TPU VMs.
    """

    name: str
    aliases: tuple[str, ...]
    dims: int
    counted: int
    devices: int
    hbm: float
    flops: float
    bandwidth: float
    largest: int
    accelerator: str
    kinds: tuple[str, ...]
    machine: str
    vm: str | None = None
    runtime: str | None = None


CHIPS = (
    Chip(
        name="v4",
        aliases=(),
        dims=3,
        counted=2,
        devices=1,
        hbm=30.75 * GIB,
        flops=275e12,
        bandwidth=1.23e12,
        largest=4096,
        accelerator="tpu-v4-podslice",
        kinds=("TPU v4",),
        machine="ct4p-hightpu",
        vm="v4",
        runtime="tpu-ubuntu2204-base",
    ),
    Chip(
        name="v5e",
        aliases=("v5litepod",),
        dims=2,
        counted=1,
        devices=1,
        hbm=15.75 * GIB,
        flops=197e12,
        bandwidth=0.82e12,
        largest=256,
        accelerator="tpu-v5-lite-podslice",
        kinds=("TPU v5 lite", "TPU v5e"),
        machine="ct5lp-hightpu",
        vm="v5litepod",
        runtime="v2-alpha-tpuv5-lite",
    ),
    Chip(
        name="v5p",
        aliases=("v5",),
        dims=3,
        counted=2,
        devices=1,
        hbm=95.74 * GIB,
        flops=459e12,
        bandwidth=2.77e12,
        largest=8960,
        accelerator="tpu-v5p-slice",
        kinds=("TPU v5",),
        machine="ct5p-hightpu",
        vm="v5p",
        runtime="v2-alpha-tpuv5",
    ),
    Chip(
        name="v6e",
        aliases=(),
        dims=2,
        counted=1,
        devices=1,
        hbm=31.25 * GIB,
        flops=918e12,
        bandwidth=1.64e12,
        largest=256,
        accelerator="tpu-v6e-slice",
        kinds=("TPU v6",),
        machine="ct6e-standard",
        vm="v6e",
        runtime="v2-alpha-tpuv6e",
    ),
    Chip(
        name="tpu7x",
        aliases=(),
        dims=3,
        counted=2,
        devices=2,
        hbm=94.75 * GIB,
        flops=2307e12,
        bandwidth=7.4e12,
        largest=9216,
        accelerator="tpu7x",
        kinds=("TPU7x",),
        machine="tpu7x-standard",
    ),
)
CHIPS_PER_HOST = 4
_ON_ONE_HOST = 8  # chips of a two-dimensional slice that one host may hold


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips with a fast network between them.

    Attributes:
      chip: the generation.
      topology: chips along each dimension of the network.
    """

    chip: Chip
    topology: tuple[int, ...]

    @property
    def name(self) -> str:
        """Product name, e.g. "v5p-256"."""
        return f"{self.chip.name}-{self.chips * self.chip.counted}"

    @property
    def grid(self) -> str:
        """Topology as Kubernetes has it, e.g. "4x4x8"."""
        return "x".join(map(str, self.topology))

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.topology)

    @property
    def devices(self) -> int:
        """Number of JAX devices."""
        return self.chips * self.chip.devices

    @property
    def hosts(self) -> int:
        """Number of machines, each a process."""
        if self.chip.dims == 2 and self.chips <= _ON_ONE_HOST:
            return 1
        return -(-self.chips // CHIPS_PER_HOST)

    @property
    def chips_per_host(self) -> int:
        """Chips of one machine."""
        return self.chips // self.hosts

    @property
    def machine(self) -> str:
        """Type of its machines, e.g. "ct5p-hightpu-4t"."""
        return f"{self.chip.machine}-{self.chips_per_host}t"

    @property
    def vm(self) -> str | None:
        """Accelerator type of TPU VMs, e.g. "v5litepod-64"; None where there are none."""
        count = self.chips * self.chip.counted
        return f"{self.chip.vm}-{count}" if self.chip.vm else None


def find_slice(name: str) -> Slice:
    """A slice by its product name, or by generation and topology.

    Raises:
      ValueError: no such generation, or no such slice of it; the message says what there is.

    >>> find_slice("v5p-256").grid, find_slice("v5p-256").hosts
    ('4x4x8', 32)
    >>> find_slice("v5litepod-64") == find_slice("v5e:8x8")
    True
    """
    match = re.fullmatch(r"([a-z0-9]+?)(?:-standard)?[-:]([0-9]+(?:x[0-9]+)*)", name.lower())
    if not match:
        raise ValueError(
            f"slice {name!r}: give a product name such as v5e-64 or v5p-256, or a topology "
            "such as v5p:4x4x8"
        )
    kind, size = match.groups()
    chip = next((c for c in CHIPS if kind in (c.name, *c.aliases)), None)
    if chip is None:
        names = ", ".join(c.name for c in CHIPS)
        raise ValueError(
            f"slice {name!r}: there is no TPU {kind!r}; the generations are {names}"
        )
    if "x" in size:
        topology = tuple(int(n) for n in size.split("x"))
        if len(topology) != chip.dims or min(topology) < 1:
            raise ValueError(
                f"slice {name!r}: a topology of {chip.name} has {chip.dims} dimensions, such "
                "as " + "x".join(["4"] * chip.dims)
            )
    else:
        count, left = divmod(int(size), chip.counted)
        topology = None if left else _topology(count, chip.dims)
        if topology is None:
            sizes = [n for n in range(1, chip.largest + 1) if _topology(n, chip.dims)]
            near = sorted(sizes, key=lambda n: abs(n - count))[:3]
            listed = ", ".join(f"{chip.name}-{n * chip.counted}" for n in sorted(near))
            unit = "cores, two a chip" if chip.counted == 2 else "chips"
            raise ValueError(
                f"slice {name!r}: the number counts {unit}, and the nearest sizes are "
                f"{listed}; give other shapes as {chip.name}:"
                + "x".join(["A", "B", "C"][: chip.dims])
            )
    found = Slice(chip, topology)
    if found.chips > chip.largest:
        raise ValueError(
            f"slice {name!r} has {found.chips} chips; the largest slice of {chip.name} has "
            f"{chip.largest}. Use several slices"
        )
    if found.chips % found.hosts:
        raise ValueError(
            f"slice {name!r} has {found.chips} chips, which hosts of {CHIPS_PER_HOST} chips do "
            "not make; give a topology with a multiple of that"
        )
    return found


def _topology(chips: int, dims: int) -> tuple[int, ...] | None:
    """The usual shape of so many chips: powers of two, as near to a cube as they come."""
    exponent = chips.bit_length() - 1
    if chips < 1 or chips != 1 << exponent:
        return None
    if dims == 2:
        return (
            None if chips == 2 else tuple(sorted((1 << exponent // 2, 1 << -(-exponent // 2))))
        )
    if chips < CHIPS_PER_HOST:
        return None
    if chips == CHIPS_PER_HOST:
        return (2, 2, 1)
    return tuple(sorted(1 << (exponent + i) // 3 for i in range(3)))


def _variables(found: Slice) -> str:
    """Assignments for a shell; every value is letters, digits, points and dashes."""
    facts = {
        "SLICE": found.name,
        "TOPOLOGY": found.grid,
        "CHIPS": found.chips,
        "HOSTS": found.hosts,
        "CHIPS_PER_HOST": found.chips_per_host,
        "DEVICES": found.devices,
        "ACCELERATOR": found.chip.accelerator,
        "MACHINE": found.machine,
        "VM_TYPE": found.vm or "",
        "VM_RUNTIME": found.chip.runtime or "",
    }
    return "\n".join(f"{name}={value}" for name, value in facts.items())


def _tables(largest: int = 1024) -> str:
    """Generations, and their usual slices up to so many chips, as Markdown."""
    chips = [("generation", "GKE accelerator", "TPU VM type", "TPU VM runtime", "most chips")]
    sizes = [("slice", "topology", "hosts", "chips per host", "chips", "devices", "machine")]
    for chip in CHIPS:
        vm = (f"{chip.vm}-N", chip.runtime) if chip.vm else ("none", "none")
        chips.append((chip.name, chip.accelerator, *vm, chip.largest))
        for count in range(1, min(chip.largest, largest) + 1):
            topology = _topology(count, chip.dims)
            if topology:
                s = Slice(chip, topology)
                row = (s.name, s.grid, s.hosts, s.chips_per_host, s.chips, s.devices, s.machine)
                sizes.append(row)
    return "\n\n".join(_markdown(*table) for table in (chips, sizes))


def _markdown(head: tuple, *rows: tuple) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def main(words: list[str]) -> str:
    """What the program prints: the tables, or the variables of one slice.

    Raises:
      ValueError: no such slice, or not one word.
    """
    if len(words) != 1:
        raise ValueError("give one slice such as v5p-256, or --table")
    return _tables() if words == ["--table"] else _variables(find_slice(words[0]))


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))
