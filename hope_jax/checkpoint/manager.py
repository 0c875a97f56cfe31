"""The checkpoints of one run: save, find the newest good one, set broken ones aside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hope_jax.checkpoint.snapshot import Snapshot, unflatten
from hope_jax.checkpoint.storage import (
    CorruptCheckpoint,
    Writer,
    finished_steps,
    read_arrays,
    read_json,
    set_aside,
)


class CheckpointManager:
    """Checkpoints under `directory`, of which the newest `keep` stay.

    Args:
      directory: created when it is not there.
      keep: number of checkpoints to keep.
      report: called with one line when something is wrong that does not stop the run.
    """

    def __init__(self, directory: Path, keep: int = 3, report: Callable[[str], Any] = print):
        self.directory = Path(directory)
        self._keep = keep
        self._report = report
        self._writer: Writer | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Write `snapshot` in the background; see `storage.Writer.save`."""
        if self._writer is None:
            self._writer = Writer(self.directory, self._keep)
        if snapshot.step not in self._writer.steps():
            self._writer.save(snapshot)

    def newest(self) -> int | None:
        """Step of the newest finished checkpoint, or None."""
        return max(finished_steps(self.directory), default=None)

    def wait(self) -> None:
        """Return when the last `save` is on disk, or raise its failure."""
        if self._writer is not None:
            self._writer.wait()

    def close(self) -> None:
        """Finish writing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def restore(self, like: Snapshot) -> Snapshot | None:
        """The newest checkpoint that can be read; None when there is none at all.

        Args:
          like: a snapshot whose array leaves are `jax.ShapeDtypeStruct`s with shardings.

        A broken checkpoint is reported, renamed to `<step>.corrupt` and the one before it
        is used. Nothing is deleted.

        Raises:
          ValueError: the checkpoint holds other arrays than `like`, or a newer version of
            hope_jax wrote it, or there are checkpoints and none of them can be read.
        """
        broken: list[CorruptCheckpoint] = []
        for step in reversed(finished_steps(self.directory)):
            try:
                snapshot = _read(self.directory / str(step), like)
            except CorruptCheckpoint as error:
                broken.append(error)
                continue
            for error in broken:
                self._report(f"{error}; kept as {set_aside(error.path).name}")
            if broken:
                self._report(f"going on from the checkpoint of step {step}")
            return snapshot
        if broken:
            reasons = "\n".join(f"  {error}" for error in broken)
            raise ValueError(
                f"no checkpoint under {self.directory} can be read:\n{reasons}\n"
                "use another --workdir to start anew"
            )
        return None


def _read(path: Path, like: Snapshot) -> Snapshot:
    items = read_json(path)
    arrays = read_arrays(path, like.array_items(), items["contents"])
    levels = {
        name: unflatten(state, arrays.get(f"level_{name}", {}))
        for name, state in like.levels.items()
    }
    return Snapshot(
        step=int(path.name),
        slow=unflatten(like.slow, arrays["slow"]),
        levels=levels,
        loop=unflatten(like.loop, arrays["loop"]),
        position=items["position"],
        config=items["config"],
    )
