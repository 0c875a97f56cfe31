"""The checkpoints of one run: save, find the newest good one, set broken ones aside."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hope_jax.checkpoint.snapshot import LEVEL, MEMORY, Snapshot, unflatten
from hope_jax.checkpoint.storage import (
    CorruptCheckpoint,
    Writer,
    finished_steps,
    read_arrays,
    read_json,
    set_aside,
)
from hope_jax.parallel.processes import everywhere, on_main

Renew = Callable[[dict[str, Any]], Collection[str]]


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
        """Finish writing, or raise the failure if `wait` has not."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def restore(self, like: Snapshot, renew: Renew | None = None) -> Snapshot | None:
        """The newest checkpoint that can be read; None when there is none at all.

        Args:
          like: a snapshot whose array leaves are `jax.ShapeDtypeStruct`s with shardings.
          renew: where the optimizers of levels may have changed: from the configuration in
            the checkpoint to the names of the levels that have another one now. Of these,
            and of levels whose arrays are others, `opt_state` is not read: its leaves in
            the result are those of `like`.

        A broken checkpoint is reported, renamed to `<step>.corrupt` and the one before it
        is used. Nothing is deleted.

        Raises:
          ValueError: the checkpoint holds other arrays than `like`, or a newer version of
            hope_jax wrote it, or there are checkpoints and none of them can be read.
        """
        broken: list[CorruptCheckpoint] = []
        for step in reversed(on_main(lambda: finished_steps(self.directory))):
            path, snapshot = self.directory / str(step), None
            try:
                snapshot = _read(path, like, renew)
            except CorruptCheckpoint as error:
                broken.append(error)
            if not everywhere(snapshot is not None):
                if snapshot is not None:
                    broken.append(CorruptCheckpoint(path, "another process cannot read it"))
                continue
            for error in broken:
                kept = on_main(lambda path=error.path: set_aside(path).name)
                self._report(f"{error}; kept as {kept}")
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


def _read(path: Path, like: Snapshot, renew: Renew | None) -> Snapshot:
    items = read_json(path)
    tables = items["contents"]["items"]
    wanted = like.array_items()
    moved = {}
    for name in like.levels:
        asked = wanted.get(LEVEL + name, {})
        moved[name] = _moved_by_a_clip(tables.get(LEVEL + name, {}), asked)
        wanted[LEVEL + name] = {moved[name].get(p, p): x for p, x in asked.items()}
    for name in set() if renew is None else _renewed(items, wanted, like.levels, renew):
        wanted[LEVEL + name] = _with_stored_memory(items, name, wanted[LEVEL + name])
    wanted = {item: arrays for item, arrays in wanted.items() if arrays}
    arrays = read_arrays(path, wanted, items["contents"])
    levels = {}
    for name, state in like.levels.items():
        found = arrays.get(LEVEL + name, {})
        asked = wanted.get(LEVEL + name, {})
        # Read because items are read whole, and of no use to the new optimizer.
        unused = [p for p in found if isinstance(asked[p], np.ndarray)]
        back = {stored: p for p, stored in moved[name].items()}
        used = {back.get(p, p): x for p, x in found.items() if p not in unused}
        levels[name] = unflatten(state, used)
    return Snapshot(
        step=int(path.name),
        slow=unflatten(like.slow, arrays["slow"]),
        levels=levels,
        loop=unflatten(like.loop, arrays["loop"]),
        position=items["position"],
        config=items["config"],
    )


def _moved_by_a_clip(stored: Collection[str], asked: Collection[str]) -> dict[str, str]:
    """Path asked for -> stored path, in an optimizer whose level got a clip or lost it.

    A clip has no arrays. It stands before the rule in an `optax.chain`, in which those of the
    rule are part 1 (`hope_jax.optim.rules.transformation`).
    """
    behind_a_clip = MEMORY + "1/"
    memory = [p for p in asked if p.startswith(MEMORY)]
    got = {p: p.replace(behind_a_clip, MEMORY, 1) for p in memory}
    lost = {p: p.replace(MEMORY, behind_a_clip, 1) for p in memory}
    there = {p for p in stored if p.startswith(MEMORY)}
    return next((moved for moved in (got, lost) if set(moved.values()) == there), {})


def _renewed(
    items: dict[str, Any],
    wanted: dict[str, dict[str, Any]],
    levels: Collection[str],
    renew: Renew,
) -> set[str]:
    """Levels whose optimizer is another one, or has other arrays."""
    tables = items["contents"]["items"]

    def memory(arrays: dict[str, Any]) -> dict[str, tuple]:
        return {p: shape for p, shape in arrays.items() if p.startswith(MEMORY)}

    renewed = set(renew(items["config"]))
    for name in levels:
        table = tables.get(LEVEL + name, {})
        stored = {p: (tuple(x["shape"]), x["dtype"]) for p, x in table.items()}
        now = {p: (x.shape, str(x.dtype)) for p, x in wanted[LEVEL + name].items()}
        if memory(stored) != memory(now):
            renewed.add(name)
    return renewed


def _with_stored_memory(items: dict[str, Any], name: str, asked: dict[str, Any]) -> dict:
    """Arrays of a level as asked for, but of its optimizer those that were stored.

    The latter as NumPy arrays (that take no room), which are read to the host.
    """
    table = items["contents"]["items"].get(LEVEL + name, {})
    return {p: x for p, x in asked.items() if not p.startswith(MEMORY)} | {
        p: np.broadcast_to(np.zeros((), jnp.dtype(x["dtype"])), x["shape"])
        for p, x in table.items()
        if p.startswith(MEMORY)
    }
