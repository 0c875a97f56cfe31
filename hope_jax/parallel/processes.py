"""Several processes that train one model: joining, and doing or failing together.

Every process runs the same program. What is done once, such as writing a log, the main one
does, and the others take its answer; where one fails, all of them fail, with its message.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from hope_jax.errors import Busy

HEARTBEAT_SECONDS = 60  # after which a process that is gone stops the others
FAREWELL_SECONDS = 30  # that one which ends waits for the others; one that failed ends alone
_PR_SET_PDEATHSIG = 1  # prctl of Linux
_KINDS = {"Busy": Busy, "OSError": OSError, "ValueError": ValueError}  # the narrower first


@dataclasses.dataclass(frozen=True)
class Peers:
    """Where the processes of a run meet.

    Attributes:
      coordinator: HOST:PORT of process 0. None: found out by JAX, as it can on TPU pods, GKE
        and Slurm.
      processes: how many; needs `coordinator`.
      process: which one this is.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None

    def __post_init__(self):
        given = [x is not None for x in (self.coordinator, self.processes, self.process)]
        if any(given) and not all(given):
            raise ValueError(
                "--coordinator, --processes and --process belong together: give all three, or "
                "none of them and have JAX find the others (--distributed)"
            )
        if self.processes is not None and not 0 <= self.process < self.processes:
            raise ValueError(
                f"--process {self.process} of --processes {self.processes}; use 0 to "
                f"{self.processes - 1}"
            )


def join(peers: Peers, timeout: int = 300) -> None:
    """Wait for the other processes; call it before anything else of JAX.

    Raises:
      TimeoutError: they did not come, or there is nothing here that tells who they are.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of use on CPUs alone
    try:
        jax.distributed.initialize(
            peers.coordinator,
            peers.processes,
            peers.process,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=FAREWELL_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        where = f" at {peers.coordinator}" if peers.coordinator else ""
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TimeoutError(
            f"the processes of this run did not meet{where} within {timeout} s: {reason}. "
            "Start all of them, with the same --coordinator and --processes; on a single "
            "machine leave these options out"
        ) from error


def die_with_parent() -> None:
    """Have this process killed when its parent ends, however that ends; only on Linux.

    A parent that has ended before is not noticed; compare `os.getppid()`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def leave(status: int) -> NoReturn:
    """End this process after a failure, whether or not the others fail too.

    Those that do are waited for, so that each can say what was wrong; threads that wait for
    one that will not come are not.
    """
    with contextlib.suppress(RuntimeError):
        jax.distributed.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def is_main() -> bool:
    """Whether this process speaks for all."""
    return jax.process_index() == 0


def on_main(action: Callable[[], Any]) -> Any:
    """What `action` gives in the main process, which alone runs it; JSON-able.

    Raises:
      ValueError, Busy, OSError: `action` raised it; then all processes raise it.
    """
    if jax.process_count() == 1:
        return action()
    answer, failure = None, None
    if is_main():
        try:
            answer = {"result": action()}
        except (ValueError, OSError) as error:
            failure = error
            kind = next(name for name, kind in _KINDS.items() if isinstance(error, kind))
            answer = {"error": [kind, str(error)]}
    answer = _told(answer)
    if failure is not None:
        raise failure
    if "error" in answer:
        kind, message = answer["error"]
        raise _KINDS[kind](message)
    return answer["result"]


def everywhere(answer: bool) -> bool:
    """Whether all processes say yes."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.process_allgather(np.asarray(answer)).all())


def of_each(value: float) -> list[float]:
    """The value of every process."""
    if jax.process_count() == 1:
        return [value]
    return multihost_utils.process_allgather(np.float32(value)).tolist()


def wait_for_all(place: str) -> None:
    """Return when every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def _told(answer: Any) -> Any:
    """JSON from the main process to all."""
    data = json.dumps(answer).encode() if is_main() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    room = np.zeros(size, np.uint8)
    room[: len(data)] = np.frombuffer(data, np.uint8)[:size]
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(room)).tobytes())
