"""The lock of a run's folder, which one process has at a time and may hand on to a child."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from hope_jax.errors import Busy

LOCK = "lock"
HANDED_ON = "HOPE_LOCKS"  # in a child's environment: descriptors of its parent's locks


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[IO[str]]:
    """Keep other processes out of the folder, which is there; gives the lock, to hand it on.

    Raises:
      Busy: another process has it.
    """
    with (workdir / LOCK).open("w") as lock:
        if not (_take(lock.fileno()) or _is_handed_on(lock.fileno())):
            raise Busy(
                f"another process is training in {workdir}; wait for it, or use another "
                "--workdir"
            )
        yield lock


def handing_on(locks: Sequence[IO[str]]) -> dict[str, Any]:
    """Arguments of `subprocess.Popen` for a child that may train in these folders.

    They stay locked until the child has ended too, whatever becomes of its parent.
    """
    descriptors = [lock.fileno() for lock in locks]
    names = ",".join(map(str, descriptors))
    return {"pass_fds": descriptors, "env": os.environ | {HANDED_ON: names}}


def _take(descriptor: int) -> bool:
    """Whether the lock is this descriptor's, now or already."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_handed_on(descriptor: int) -> bool:
    """Whether our parent has the lock of this file for us."""
    for name in filter(None, os.environ.get(HANDED_ON, "").split(",")):
        with contextlib.suppress(OSError):  # it was for another process, and is not open here
            same = os.path.samestat(os.fstat(int(name)), os.fstat(descriptor))
            if same and _take(int(name)):
                return True
    return False
