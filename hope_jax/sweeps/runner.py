"""Run the points of a sweep, each in a process and a folder of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Literal, TypeVar

from hope_jax.config import to_dict, to_json
from hope_jax.config.sweeps import Point
from hope_jax.errors import Busy
from hope_jax.training.lock import handing_on, locked
from hope_jax.training.together import common
from hope_jax.training.workdir import (
    CHECKPOINTS,
    HARMLESS,
    SUMMARY,
    differences,
    listed,
    of_today,
)

CONFIG, LOG = "point.json", "log.txt"
Item, Result = TypeVar("Item"), TypeVar("Result")
PATIENCE = 60.0  # seconds that a run has to save when it is told to stop


@dataclasses.dataclass(frozen=True)
class Ending:
    """How one point ended.

    Attributes:
      point: which one.
      how: "done", "finished before", "failed", "stopped" (and saved; it can go on), or "busy"
        (another process trains there, and it is left to that one).
      log: what the run printed.
      status: with which its process ended, where it failed.
    """

    point: Point
    how: Literal["done", "finished before", "failed", "stopped", "busy"]
    log: Path
    status: int | None = None

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
    together: int = 1,
) -> list[Ending]:
    """Train every point in `folder/NAME`, `at_once` at a time.

    A point whose run is finished is not run again, and one that was stopped goes on. A run
    that fails does not stop the others, nor does one that another process has at work. Ctrl-C
    lets the runs at work save first.

    Args:
      points: from `load_sweep`.
      folder: where the folders of the runs are.
      at_once: runs at the same time.
      say: called with one line when a run begins or ends.
      keep_checkpoints: False removes those of finished runs, which fill disks.
      together: up to so many runs that differ in seeds and learning rate alone are one
        program in one process; see `hope_jax.training.together`.

    Raises:
      ValueError: a folder holds a finished run of another configuration.
    """
    crew = Crew(folder, say, len(points), keep_checkpoints)
    for point in points:
        is_finished(folder, point)  # before hours of training, not after them
    if together == 1:
        return crew.each(crew.run, points, at_once)
    endings = crew.each(crew.run_together, alike(points, together), at_once)
    return [ending for some in endings for ending in some]


def alike(points: Sequence[Point], most: int) -> list[list[Point]]:
    """Points that can be trained in one program, in groups of at most `most`."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(common(point.config), []).append(point)
    return [
        group[first : first + most]
        for group in groups.values()
        for first in range(0, len(group), most)
    ]


def is_finished(folder: Path, point: Point) -> bool:
    """Whether the point's run in `folder/NAME` has come to its end, as its summary says.

    Raises:
      ValueError: the summary is of another configuration, or of none.
    """
    path = folder / point.name / SUMMARY
    if not path.exists():
        return False
    try:
        old = of_today(json.loads(path.read_text())["config"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is not the summary of a run; mend it or move it away"
        ) from None
    changes = differences(old, to_dict(point.config), HARMLESS - {"steps"})
    if changes:
        raise ValueError(
            f"{path.parent} holds a finished run of another configuration:\n"
            f"{listed(changes)}\nuse another --workdir, or remove that folder"
        )
    return True


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
        return self.run_together([point])[0]

    def run_together(self, points: Sequence[Point]) -> list[Ending]:
        """Train points in one program; their log is that of the first.

        Those that are finished or at work elsewhere are left out, and come first in the answer.
        """
        endings: list[Ending] = []
        ours: list[Point] = []
        locks: list[IO[str]] = []
        # Nothing is written to a folder without its lock, kept until the run has ended.
        with contextlib.ExitStack() as stack:
            for point in points:
                workdir = self._folder / point.name
                try:
                    if not is_finished(self._folder, point):
                        workdir.mkdir(parents=True, exist_ok=True)
                        locks.append(stack.enter_context(locked(workdir)))
                except Busy:
                    endings.append(self._end(Ending(point, "busy", workdir / LOG)))
                    continue
                if is_finished(self._folder, point):  # again: nobody else trains there now
                    endings.append(self._end(Ending(point, "finished before", workdir / LOG)))
                    continue
                (workdir / CONFIG).write_text(to_json(point.config) + "\n")
                ours.append(point)
            return endings + self._train(ours, locks)

    def _train(self, points: Sequence[Point], locks: Sequence[IO[str]]) -> list[Ending]:
        if not points:
            return []
        folders = [self._folder / point.name for point in points]
        if len(points) == 1:
            what = points[0].name
            command = ["-m", "hope_jax", "train", "--config", str(folders[0] / CONFIG)]
            command += ["--workdir", str(folders[0])]
        else:
            what = f"{points[0].name} and {len(points) - 1} more"
            command = ["-m", "hope_jax.sweeps.together", *map(str, folders)]
        log = folders[0] / LOG
        status = self._call(command, log, what, locks)
        return [self._ended_with(status, point, log) for point in points]

    def _call(
        self, command: Sequence[str], log: Path, what: str, locks: Sequence[IO[str]]
    ) -> int | None:
        """Python with this command line; its exit status, None if it was not begun."""
        with log.open("a") as out:
            with self._lock:
                if self._stopping:
                    return None
                # A group of its own: Ctrl-C reaches us alone, and we pass it on.
                process = subprocess.Popen(
                    [sys.executable, *command],
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    **handing_on(locks),
                )
                self._at_work.add(process)
            self._say(f"{what}: begins, log in {log}")
            status = process.wait()
        with self._lock:
            self._at_work.discard(process)
        return status

    def _ended_with(self, status: int | None, point: Point, log: Path) -> Ending:
        if status is None:
            return Ending(point, "stopped", log)
        if is_finished(self._folder, point):
            if not self._keep_checkpoints:
                shutil.rmtree(self._folder / point.name / CHECKPOINTS, ignore_errors=True)
            return self._end(Ending(point, "done", log))
        if status in (128 + signal.SIGTERM, -signal.SIGTERM):
            return self._end(Ending(point, "stopped", log))
        return self._end(Ending(point, "failed", log, status))

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
        if ending.how == "busy":
            why = ": another process is training it"
        self._say(f"{count} {ending.point.name}: {ending.how}{why}")
        return ending
