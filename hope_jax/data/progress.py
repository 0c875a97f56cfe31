"""Progress by bytes: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def byte_progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of bytes done since its last call.

    Both forms go to standard error; away from a terminal there is a line at most every five
    seconds and one at the end.
    """
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(label, total=total)
            yield lambda count: bar.advance(task, count)
        return
    begun = shown = time.monotonic()
    done = 0

    def line() -> None:
        share = 100 * done // max(total, 1)
        rate = done / 1e6 / max(time.monotonic() - begun, 1e-9)
        print(
            f"{label}: {share}%, {done / 1e6:.1f} of {total / 1e6:.1f} MB, {rate:.1f} MB/s",
            file=sys.stderr,
            flush=True,
        )

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        if time.monotonic() - shown >= 5:
            shown = time.monotonic()
            line()

    yield advance
    line()


def _bar():
    from rich import console, progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console.Console(stderr=True),
    )
