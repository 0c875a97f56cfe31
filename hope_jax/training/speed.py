"""Tokens per second, and the share of the hardware's peak that the model uses (MFU)."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from hope_jax.parallel.slices import CHIPS

# Dense bf16 peak of one JAX device in FLOP/s, by a part of its `device_kind`; the first
# that fits counts. A TPU7x chip is two devices.
PEAKS = (
    *((kind, chip.flops / chip.devices) for chip in CHIPS for kind in chip.kinds),
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("V100", 125e12),
)


@dataclasses.dataclass(frozen=True)
class Peak:
    """FLOP/s of all devices together, and whether that was looked up or measured."""

    flops: float
    source: str


def peak_flops(devices: Sequence[jax.Device]) -> Peak | None:
    """Peak of devices of one kind: from the table, on a CPU measured; None if unknown.

    Devices of a CPU share its processors: they have one peak together.
    """
    first = devices[0]
    if first.platform == "cpu":
        return Peak(_measure(jax.local_devices()[0]), "measured: float32 matrix product")
    for part, flops in PEAKS:
        if part.lower() in first.device_kind.lower():
            return Peak(flops * len(devices), f"bfloat16 peak of {first.device_kind}")
    return None


def _measure(device: jax.Device, size: int = 1024, trials: int = 4) -> float:
    x = jax.device_put(jnp.ones((size, size), jnp.float32), device)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    times = []
    for _ in range(trials):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


class SpeedMeter:
    """Tokens per second between reports, without the time spent in `paused`."""

    def __init__(self, flops_per_token: float, peak: Peak | None):
        self._flops_per_token = flops_per_token
        self._peak = peak
        self._tokens = 0
        self._since = time.perf_counter()
        self._paused = 0.0

    def add(self, tokens: int) -> None:
        """Count tokens whose step is finished."""
        self._tokens += tokens

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time for something else, such as an evaluation."""
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def report(self) -> dict[str, float]:
        """`tokens_per_second` and, for known hardware, `mfu`; starts a new interval."""
        now = time.perf_counter()
        rate = self._tokens / max(now - self._since - self._paused, 1e-9)
        self._tokens, self._since, self._paused = 0, now, 0.0
        values = {"tokens_per_second": rate}
        if self._peak is not None:
            values["mfu"] = rate * self._flops_per_token / self._peak.flops
        return values
