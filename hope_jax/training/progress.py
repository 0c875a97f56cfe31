"""What the terminal shows: a bar where there is one, a line every so often elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text


class ProgressDisplay:
    """Shows how far a run has come.

    Args:
      steps: where it ends.
      console: where to; the standard output by default.
    """

    def __init__(self, steps: int, console: Console | None = None):
        self._steps = steps
        self._first = 0
        self._began = time.perf_counter()
        self._console = console or Console(soft_wrap=True, highlight=False)
        self._bar: Progress | None = None

    def begin(self, start: int) -> None:
        """Training starts now, after `start` steps done before."""
        self._first = start
        self._began = time.perf_counter()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.completed}/{task.total}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[status]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(
                "train", total=self._steps, completed=start, status=""
            )
            self._bar.start()

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Show the numbers of a step."""
        status = f"loss {values['loss']:.4f}"
        if "tokens_per_second" in values:
            status += f"  {values['tokens_per_second']:,.0f} tokens/s"
        slowest, usual = values.get("input_ms/slowest", 0), values.get("input_ms/median", 0)
        if slowest > 2 * usual + 10:
            status += (
                f"  process {values['input_ms/slowest_process']} is slow: {slowest:,.0f} ms a "
                f"step for its rows, others {usual:,.0f}"
            )
        status += f"  {_clock(self._remaining(step))} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=status)
        else:
            self.say(f"step {step}/{self._steps}  {status}")

    def say(self, message: str) -> None:
        """Print a line; a bar stays below it."""
        self._console.print(Text(message))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def _remaining(self, step: int) -> float:
        done = max(step - self._first, 1)
        return (time.perf_counter() - self._began) / done * (self._steps - step)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
