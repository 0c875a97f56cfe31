"""TPU slices by their product names: what they hold, and what a chip can do.

Sources: the vendor's pages on each generation (peak, bandwidth, chips per host); the memory
that a program may use is what the compiler reports for one device.
"""

from __future__ import annotations

import dataclasses
import math
import re

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


CHIPS = (
    Chip("v4", (), 3, 2, 1, 30.75 * GIB, 275e12, 1.23e12, 4096, "tpu-v4-podslice", ("TPU v4",)),
    Chip(
        "v5e",
        ("v5litepod",),
        2,
        1,
        1,
        15.75 * GIB,
        197e12,
        0.82e12,
        256,
        "tpu-v5-lite-podslice",
        ("TPU v5 lite", "TPU v5e"),
    ),
    Chip(
        "v5p",
        ("v5",),
        3,
        2,
        1,
        95.74 * GIB,
        459e12,
        2.77e12,
        8960,
        "tpu-v5p-slice",
        ("TPU v5",),
    ),
    Chip("v6e", (), 2, 1, 1, 31.25 * GIB, 918e12, 1.64e12, 256, "tpu-v6e-slice", ("TPU v6",)),
    Chip("tpu7x", (), 3, 2, 2, 94.75 * GIB, 2307e12, 7.4e12, 9216, "tpu7x", ("TPU7x",)),
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
            sizes = [n for n in range(1, 1025) if _topology(n, chip.dims)]
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
