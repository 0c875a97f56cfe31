"""How the devices of a run share the model and its data."""

from __future__ import annotations

import dataclasses
import math

from hope_jax.config.check import require


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices in a grid `data` x `fsdp` x `tensor`. Changing it changes no result.

    Attributes:
      data: copies of the weights, which share the batch. None: one per slice, because this
        is the axis that may cross the slower network between slices.
      fsdp: parts of the weights, the gradients and the optimizer states, which share the
        batch too. None: all devices that are left.
      tensor: parts of heads, of hidden layers and of the vocabulary.

    Raises:
      ValueError: a number below 1.

    >>> MeshConfig(tensor=4).shape(16)
    (1, 4, 4)
    """

    data: int | None = None
    fsdp: int | None = None
    tensor: int = 1

    def __post_init__(self):
        for field in ("data", "fsdp", "tensor"):
            value = getattr(self, field)
            optional = field != "tensor"
            require(
                (optional and value is None) or (value is not None and value >= 1),
                f"mesh.{field} is {value}; use at least 1" + (", or None" if optional else ""),
            )

    def shape(self, devices: int, slices: int = 1) -> tuple[int, int, int]:
        """Numbers of devices along data, fsdp and tensor.

        Args:
          devices: all there are, over all slices.
          slices: groups of devices with a fast network inside.

        Raises:
          ValueError: the numbers do not multiply to `devices`, or a slice would hold a
            part of a copy.
        """
        data = slices if self.data is None else self.data
        require(
            data % slices == 0,
            f"mesh.data {data} is not a multiple of the {slices} slices; use {slices} or a "
            "multiple, so that only copies of the weights speak between slices",
        )
        rest, over = divmod(devices, data * self.tensor)
        fsdp = max(rest, 1) if self.fsdp is None else self.fsdp
        shape = (data, fsdp, self.tensor)
        remedy = f"choose numbers that multiply to {devices}, or leave mesh.fsdp at None"
        if self.fsdp is None:
            remedy = f"choose data and tensor whose product divides {devices}"
        require(
            math.prod(shape) == devices and not (self.fsdp is None and over),
            f"mesh data {data} x fsdp {fsdp} x tensor {self.tensor} is {math.prod(shape)} "
            f"devices, and there are {devices}; {remedy}",
        )
        return shape
