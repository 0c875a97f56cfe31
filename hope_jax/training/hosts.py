"""How long each host lets the devices wait for their rows."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

from hope_jax.parallel.processes import of_each


class InputTimes:
    """Time that this process takes for a step's rows; `report` compares all processes.

    All devices wait for the last host. Their own times do not tell which one it is, because
    they are all the same; these do.
    """

    def __init__(self):
        self._seconds, self._steps = 0.0, 0

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Around reading and placing the rows of one step."""
        began = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - began
        self._steps += 1

    def report(self) -> dict[str, float]:
        """Milliseconds a step since the last report: median of the processes, and the slowest.

        All processes have to ask at the same step.
        """
        own = 1e3 * self._seconds / max(self._steps, 1)
        self._seconds, self._steps = 0.0, 0
        times = of_each(own)
        slowest = max(range(len(times)), key=lambda i: times[i])
        return {
            "input_ms/median": statistics.median(times),
            "input_ms/slowest": times[slowest],
            "input_ms/slowest_process": slowest,
        }
