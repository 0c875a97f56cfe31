"""What was found out about a step on a slice, as JSON and in words."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Report:
    """One program on one kind of slice.

    Attributes:
      config: name of the configuration.
      program: "train" or "decode".
      slice: product name; `slices` of them.
      topology, chips, hosts, devices: of all slices together, but `topology` of one.
      mesh: in words.
      parameters: of the model.
      tokens: per step, over all devices.
      bytes: per device, by component: parameters, optimizer, fast state, batch.
      peak: bytes in use at most on one device; None: the compiler did not say.
      usable: bytes that a program may use on one device.
      temporary: bytes beside the arguments: activations, gathered weights, fast state.
      flops: of one step over all devices, by count.
      compute_seconds, memory_seconds: the least that a step can take, by each.
      collectives: bytes received per device and step, by kind.
      fsdp_bytes: what theory asks for.
      suspicious: collectives of what should have stayed where it was.
      compile_seconds: on this machine.
      versions: of jax, jaxlib, libtpu.
      error: why there is no program; "" if there is one.
    """

    config: str
    program: str
    slice: str
    slices: int
    topology: str
    chips: int
    hosts: int
    devices: int
    mesh: str
    parameters: int
    tokens: int
    bytes: dict[str, int]
    usable: float
    flops: float
    compute_seconds: float
    memory_seconds: float
    fsdp_bytes: float
    versions: dict[str, str]
    peak: int | None = None
    temporary: int | None = None
    collectives: dict[str, float] = dataclasses.field(default_factory=dict)
    suspicious: tuple[str, ...] = ()
    compile_seconds: float | None = None
    error: str = ""

    @property
    def fits(self) -> bool:
        """Whether a device has room for it."""
        return not self.error and self.peak is not None and self.peak <= self.usable

    @property
    def moved(self) -> float:
        """Bytes that a device receives in a step."""
        return sum(self.collectives.values())

    @property
    def floor(self) -> tuple[float, str]:
        """Seconds that a step takes at the least, and what sets them."""
        return max((self.compute_seconds, "compute"), (self.memory_seconds, "memory"))

    def to_json(self) -> str:
        """All of it, and the verdict."""
        facts: dict[str, Any] = dataclasses.asdict(self)
        facts |= {"fits": self.fits, "moved": self.moved}
        return json.dumps(facts, indent=2)

    def lines(self) -> list[str]:
        """All of it, for people."""
        seconds, limit = self.floor
        several = f"{self.slices} x " if self.slices > 1 else ""
        text = [
            f"{self.config}, {self.program}, on {several}{self.slice} ({self.topology}): "
            f"{self.chips} chips, {self.hosts} hosts, {self.devices} devices",
            f"mesh {self.mesh}; {self.parameters:,} parameters; {self.tokens:,} tokens a step",
            "",
            "per device",
        ]
        text += [_line(name, size) for name, size in self.bytes.items()]
        if self.temporary is not None:
            text.append(_line("temporary", self.temporary))
        if self.peak is not None:
            text.append(f"{_line('peak', self.peak)} of {_size(self.usable)} usable")
        text += [
            "",
            f"a step: {self.flops:.3g} FLOPs by count; at the peak of the chips it takes "
            f"{_time(self.compute_seconds)}, and its memory traffic "
            f"{_time(self.memory_seconds)}: {limit} sets the floor of "
            f"{_time(seconds)}",
        ]
        if self.collectives:
            text += ["", "received per device and step"]
            order = sorted(self.collectives.items(), key=lambda item: -item[1])
            text += [_line(kind, size) for kind, size in order]
            if self.fsdp_bytes:
                text.append(
                    f"  in all {_size(self.moved)}, {self.moved / self.fsdp_bytes:.2f} "
                    f"times the {_size(self.fsdp_bytes)} that split weights ask for"
                )
        text += [f"  should have stayed where it was: {line}" for line in self.suspicious]
        text += ["", *self.verdict()]
        return text

    def verdict(self) -> list[str]:
        """Fits or not, and what to turn if not."""
        if self.error:
            return [f"does not compile: {self.error}", *self._knobs()]
        if self.fits:
            return [
                f"fits: {self.peak / self.usable:.0%} of the memory; compiled in "
                f"{self.compile_seconds:.0f} s"
            ]
        return ["does not fit", *self._knobs()]

    def _knobs(self) -> list[str]:
        state = sum(self.bytes.get(k, 0) for k in ("parameters", "optimizer"))
        if "crash" in self.error:
            return []
        if state > 0.5 * self.usable:
            return [
                "the weights and optimizer states take most: raise mesh.fsdp or mesh.tensor, "
                "or use more chips"
            ]
        return [
            "activations take most: raise accumulate, lower data.batch or data.length, set "
            "model.remat=block, or raise mesh.tensor"
        ]


def _line(name: str, size: float) -> str:
    return f"  {name:<20}{_size(size):>12}"


def _size(size: float) -> str:
    """Bytes in the unit that suits them.

    >>> _size(3 * 2**30), _size(1536)
    ('3.00 GiB', '1.5 KiB')
    """
    for unit, name, digits in ((GIB, "GiB", 2), (2**20, "MiB", 1)):
        if size >= unit:
            return f"{size / unit:,.{digits}f} {name}"
    return f"{size / 1024:,.1f} KiB"


def _time(seconds: float) -> str:
    """Milliseconds, or microseconds.

    >>> _time(0.25), _time(2e-5)
    ('250.0 ms', '20.0 us')
    """
    return f"{1e3 * seconds:,.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:,.1f} us"
