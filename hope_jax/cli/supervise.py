"""A process that watches the one that trains, and can still speak when that one cannot.

Of several processes, one that loses another is ended by the runtime below Python, with pages of
addresses and no word of what to do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

WATCHED = "HOPE_WATCHED"  # set in the environment of the process that is watched


def is_watched() -> bool:
    """Whether this process is the one that is watched; if so, it dies with its watcher."""
    if os.environ.get(WATCHED) != str(os.getppid()):
        return False
    from hope_jax.parallel.processes import die_with_parent

    die_with_parent()
    return True


def watch(workdir: Path) -> int:
    """Run this command once more, hand signals on, and return its exit status.

    Args:
      workdir: of the run, to say what is left after a loss.
    """
    command = [sys.executable, "-m", "hope_jax", *sys.argv[1:]]
    child = subprocess.Popen(command, env=os.environ | {WATCHED: str(os.getpid())})
    signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    status = child.wait()
    if status >= 0:
        return status
    name = signal.Signals(-status).name
    why = {
        "SIGABRT": "another process of this run is lost, or does not answer",
        "SIGKILL": "it was killed, by hand or because the machine ran out of memory",
    }.get(name, "see what it said last")
    print(
        f"hope train: ended by {name}: {why}. {_left(workdir)}; start all processes again with "
        "the same command to go on",
        file=sys.stderr,
    )
    return 128 - status


def _left(workdir: Path) -> str:
    from hope_jax.checkpoint.storage import finished_steps

    steps = finished_steps(workdir / "checkpoints")
    return f"Checkpoint {steps[-1]} is intact" if steps else "There is no checkpoint yet"
