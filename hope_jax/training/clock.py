"""What the time of a run went into, over all its parts and losses."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from hope_jax.checkpoint.whole_file import write_whole

FILE = "clock.json"


class Clock:
    """Wall, CPU and useful seconds of a run since it first began.

    Useful is the time in which training steps ran that the run still has: not compiling,
    evaluating and saving, and not steps that were lost with a process and done again. Time
    between the parts of a run does not count.

    Args:
      folder: where `save` writes how long the run has been going, so that time is known that
        no checkpoint knows of. None: nowhere.
      wall_seconds, cpu_seconds, useful_seconds: as the checkpoint has them that the run goes
        on from. Without them a run begins, and what an earlier one left in the folder is not
        its own.

    >>> clock = Clock(None, wall_seconds=10.0, useful_seconds=4.0)
    >>> 0.39 < clock.goodput() <= 0.4
    True
    """

    def __init__(
        self,
        folder: Path | None,
        wall_seconds: float = 0.0,
        cpu_seconds: float = 0.0,
        useful_seconds: float = 0.0,
    ):
        self._file = None if folder is None else folder / FILE
        known = self._known() if wall_seconds else 0.0
        self._before = max(wall_seconds, known), cpu_seconds
        self._useful = useful_seconds
        self._since: float | None = None
        self.begin()

    def begin(self) -> None:
        """Time counts from now on, and none since the clock was made."""
        wall_seconds, cpu_seconds = self._before
        self._wall = time.perf_counter() - wall_seconds
        self._cpu = time.process_time() - cpu_seconds

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Useful time begins, and ends with the context."""
        self._since = time.perf_counter()
        yield
        self._take()
        self._since = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time for something else, within `training`."""
        self._take()
        yield
        self._since = time.perf_counter()

    def read(self) -> dict[str, float]:
        """`wall_seconds`, `cpu_seconds` (of all threads) and `useful_seconds`."""
        self._take()
        return {
            "wall_seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
            "useful_seconds": self._useful,
        }

    def goodput(self) -> float:
        """Share of the run's time that was useful."""
        seconds = self.read()
        return seconds["useful_seconds"] / max(seconds["wall_seconds"], 1e-9)

    def save(self) -> None:
        """Remember how long the run has been going, whatever happens next."""
        if self._file is not None:
            write_whole(self._file, json.dumps({"wall_seconds": self.read()["wall_seconds"]}))

    def _take(self) -> None:
        if self._since is not None:
            now = time.perf_counter()
            self._useful += now - self._since
            self._since = now

    def _known(self) -> float:
        try:
            return float(json.loads(self._file.read_text())["wall_seconds"])
        except (AttributeError, OSError, ValueError, KeyError, TypeError):
            return 0.0  # a folder without it, or a kill cut it short
