"""Stopwatches and scales: wall time, CPU time, memory."""

from __future__ import annotations

import dataclasses
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a computation took.

    CPU seconds add up over the threads of the process. They move far less than wall
    seconds when other programs use the machine, so CPU speeds are compared by them.
    """

    wall: float
    cpu: float


def spend(compute: Callable[[], Any]) -> tuple[Any, Spent]:
    """Run `compute` until its result is there."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(compute())
    return result, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def compiled_bytes(compiled: Any) -> int | None:
    """Peak of arguments, results and temporaries of a compiled function, if known."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return (
        analysis.temp_size_in_bytes
        + analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def memory_limit() -> int:
    """Bytes that the device can hold; the machine's memory for a CPU."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def reset_peak() -> None:
    """Start counting the process's peak memory anew, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # `process_peak` is then the peak since the start of the process


def process_peak() -> int:
    """Peak resident bytes of the process since `reset_peak`."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
