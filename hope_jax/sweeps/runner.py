"""Run the points of a sweep, each in a process and a folder of its own."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from hope_jax.config import to_json
from hope_jax.config.sweeps import Point
from hope_jax.training.workdir import CHECKPOINTS, SUMMARY

CONFIG, LOG = "point.json", "log.txt"
Item, Result = TypeVar("Item"), TypeVar("Result")
PATIENCE = 60.0  # seconds that a run has to save when it is told to stop


@dataclasses.dataclass(frozen=True)
class Ending:
    """How one point ended.

    Attributes:
      point: which one.
      how: "done", "finished before", "failed", or "stopped" (and saved; it can go on).
      log: what the run printed.
    """

    point: Point
    how: Literal["done", "finished before", "failed", "stopped"]
    log: Path

    @property
    def last_line(self) -> str:
        """The last line of the log: the error, where it failed."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def run_points(
    points: Sequence[Point],
    folder: Path,
    at_once: int = 1,
    say: Callable[[str], None] = print,
    keep_checkpoints: bool = True,
) -> list[Ending]:
    """Train every point in `folder/NAME`, `at_once` at a time.

    A point whose run is finished is not run again, and one that was stopped goes on. A run
    that fails does not stop the others. Ctrl-C lets the runs at work save first.

    Args:
      points: from `load_sweep`.
      folder: where the folders of the runs are.
      at_once: runs at the same time.
      say: called with one line when a run begins or ends.
      keep_checkpoints: False removes those of finished runs, which fill disks.
    """
    crew = Crew(folder, say, len(points), keep_checkpoints)
    return crew.each(crew.run, points, at_once)


class Crew:
    """The runs at work, and how many are behind them; may be used by several threads.

    Args:
      folder: where the folders of the runs are.
      say: called with one line when a run begins or ends.
      total: number of runs, where it is known.
      keep_checkpoints: False removes those of finished runs.
    """

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        total: int | None = None,
        keep_checkpoints: bool = True,
    ):
        self._folder, self._say, self._total = folder, say, total
        self._keep_checkpoints = keep_checkpoints
        self._lock = threading.Lock()
        self._at_work: set[subprocess.Popen] = set()
        self._stopping = False
        self._ended = 0

    def run(self, point: Point) -> Ending:
        """Train one point."""
        workdir = self._folder / point.name
        log = workdir / LOG
        if (workdir / SUMMARY).exists():
            return self._end(Ending(point, "finished before", log))
        workdir.mkdir(parents=True, exist_ok=True)
        config = workdir / CONFIG
        config.write_text(to_json(point.config) + "\n")
        command = [sys.executable, "-m", "hope_jax", "train"]
        command += ["--config", str(config), "--workdir", str(workdir)]
        with log.open("a") as out:
            with self._lock:
                if self._stopping:
                    return Ending(point, "stopped", log)
                # A group of its own: Ctrl-C reaches us alone, and we pass it on.
                process = subprocess.Popen(
                    command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
                )
                self._at_work.add(process)
            self._say(f"{point.name}: begins, log in {log}")
            status = process.wait()
        with self._lock:
            self._at_work.discard(process)
        if status == 0:
            if not self._keep_checkpoints:
                shutil.rmtree(workdir / CHECKPOINTS, ignore_errors=True)
            return self._end(Ending(point, "done", log))
        stopped = status in (128 + signal.SIGTERM, -signal.SIGTERM)
        return self._end(Ending(point, "stopped" if stopped else "failed", log))

    def each(
        self, task: Callable[[Item], Result], items: Sequence[Item], at_once: int
    ) -> list[Result]:
        """`task` of every item, `at_once` at a time; if that is broken off, runs save first."""
        with ThreadPoolExecutor(at_once) as pool:
            results = [pool.submit(task, item) for item in items]
            try:
                return [result.result() for result in results]
            except BaseException:
                self.stop()
                pool.shutdown(cancel_futures=True)
                raise

    def stop(self) -> None:
        """Tell the runs at work to save and end."""
        with self._lock:
            self._stopping = True
            at_work = list(self._at_work)
        for process in at_work:
            process.terminate()
        for process in at_work:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()

    def _end(self, ending: Ending) -> Ending:
        with self._lock:
            self._ended += 1
            count = f"{self._ended}/{self._total}" if self._total else f"{self._ended}"
        why = f": {ending.last_line}" if ending.how == "failed" else ""
        self._say(f"{count} {ending.point.name}: {ending.how}{why}")
        return ending
