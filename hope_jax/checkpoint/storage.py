"""Reading and writing snapshots through Orbax; the only module that imports it."""

from __future__ import annotations

import contextlib
import logging
import shutil
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from hope_jax.checkpoint import inventory
from hope_jax.checkpoint.checksum import checksums
from hope_jax.checkpoint.snapshot import FORMAT, JSON_ITEMS, Snapshot
from hope_jax.parallel.processes import is_main, on_main


class CorruptCheckpoint(Exception):
    """A checkpoint that cannot be read; carries its path and the reason."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"checkpoint {path} cannot be read: {reason}")
        self.path = path
        self.reason = reason


class WriteFailed(OSError):
    """A checkpoint could not be written; those before it are untouched."""


def context() -> ocp.Context:
    """Orbax settings: JSON items by name, everything else as arrays."""
    registry = ocp.handlers.local_registry()
    for name in JSON_ITEMS:
        registry.add(ocp.handlers.JsonHandler, checkpointable_name=name)
    settings = ocp.Context()
    settings.checkpointables.registry = registry
    return settings


class _Tracebacks(logging.Filter):
    """Keeps the tracebacks of Orbax's threads out of the log: `Writer` raises them in a line.

    Of several processes, one whose write failed goes on to wait for the others, up to 20
    minutes, before Orbax raises. `last` tells what it waits with.
    """

    last: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is for people."""
        if not (record.exc_info and "orbax" in record.pathname):
            return True
        self.last = record.exc_info[1]
        return False


_tracebacks = _Tracebacks()
logging.getLogger("absl").addFilter(_tracebacks)
_PATIENCE_SECONDS = 5  # with a write that failed and does not end


class Writer:
    """Writes snapshots in the background and keeps the newest `keep` of them."""

    def __init__(self, directory: Path, keep: int):
        self.directory = directory
        policies = ocp.training.save_decision_policies
        try:
            on_main(lambda: directory.mkdir(parents=True, exist_ok=True))
            self._orbax = ocp.training.Checkpointer(
                directory.absolute(),
                context=context(),
                save_decision_policy=policies.FixedIntervalPolicy(1),  # the loop decides
                preservation_policy=ocp.training.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=True,  # halves of saves that a kill cut short
            )
        except OSError as error:
            raise WriteFailed(f"cannot use {directory} for checkpoints: {error}") from error
        self._thread = futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: tuple[int, futures.Future] | None = None
        self._stuck = False  # waiting for other processes after a failure
        self._failed = False  # the last write, which was raised

    def steps(self) -> list[int]:
        """Steps of the checkpoints there are, oldest first."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def save(self, snapshot: Snapshot) -> None:
        """Copy `snapshot` to the host and write it in the background.

        The arrays may be donated as soon as this returns. A failure of the write before
        this one is raised here.

        Raises:
          WriteFailed: naming the step, the folder, the reason and what is left.
        """
        self.wait()
        self._failed = False
        items: dict[str, Any] = snapshot.array_items()
        tables = {name: _table(arrays) for name, arrays in items.items()}
        contents = {"format": FORMAT, "step": snapshot.step, "items": tables}
        items |= {"position": snapshot.position, "config": snapshot.config}
        _tracebacks.last = None
        try:
            response = self._orbax.save_checkpointables_async(
                snapshot.step, items | {"contents": contents}, force=True
            )
        except Exception as error:  # Orbax and TensorStore raise many types for a full disk
            raise self._failure(snapshot.step, error) from error
        done = self._thread.submit(self._finish, snapshot.step, response)
        self._pending = (snapshot.step, done)

    def wait(self) -> None:
        """Return when the last `save` is on disk, or raise its failure."""
        if self._pending is None:
            return
        (step, done), self._pending = self._pending, None
        try:
            self._result_of(done)
        except Exception as error:
            raise self._failure(step, error) from error

    def close(self) -> None:
        """Finish what is being written.

        Raises:
          WriteFailed: it could not be written, and `wait` has not said so.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown(wait=not self._stuck)
            if not self._stuck:
                self._close_orbax()

    def _close_orbax(self) -> None:
        try:
            self._orbax.close()
        except Exception:  # of any type, as in `save`
            if not self._failed:
                raise
            # Orbax raises a failure once in every thread, before it closes. `WriteFailed` has
            # told it, and says more.
            with contextlib.suppress(Exception):
                self._orbax.close()

    def _result_of(self, done: futures.Future) -> None:
        while not done.done():
            futures.wait([done], _PATIENCE_SECONDS)
            if jax.process_count() > 1 and _tracebacks.last is not None and not done.done():
                self._stuck = True
                raise _tracebacks.last
        done.result()

    def _finish(self, step: int, response: Any) -> None:
        response.result()
        if is_main():
            inventory.write(self.directory / str(step))

    def _failure(self, step: int, error: Exception) -> WriteFailed:
        self._failed = True
        left = [s for s in finished_steps(self.directory) if s != step]
        rest = f"The checkpoint of step {left[-1]} is intact" if left else "There is no other"
        return WriteFailed(
            f"the checkpoint of step {step} could not be written to {self.directory}: "
            f"{_first_line(error)}. {rest}; make room or mend the folder and run the same "
            "command again"
        )


def finished_steps(directory: Path) -> list[int]:
    """Steps with a finished checkpoint under `directory`, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal())


def read_json(path: Path, names: tuple[str, ...] = JSON_ITEMS) -> dict[str, Any]:
    """The JSON items `names` of the checkpoint at `path`, among them `contents`.

    Raises:
      CorruptCheckpoint: they cannot be read.
      ValueError: a newer version of hope_jax wrote it.
    """
    with context():
        items = _load(path, dict.fromkeys(names))
    contents = items["contents"]
    written = contents.get("format") if isinstance(contents, dict) else None
    if not isinstance(written, int):
        raise CorruptCheckpoint(path, "contents/data.json has no format number")
    if written > FORMAT:
        raise ValueError(
            f"{path} has checkpoint format {written} and this version of hope_jax reads up to "
            f"{FORMAT}; upgrade hope_jax"
        )
    if not _describes_arrays(contents):
        raise CorruptCheckpoint(path, "contents/data.json does not describe the arrays")
    return items


def read_arrays(path: Path, wanted: dict[str, dict], contents: dict) -> dict[str, dict]:
    """Array items at `path`, checked against the shapes and checksums written beside them.

    Args:
      path: folder of one checkpoint.
      wanted: item -> array path -> `jax.ShapeDtypeStruct` with a sharding, or a NumPy
        array, which loads the item to the host.
      contents: the item of that name from `read_json`.

    Raises:
      ValueError: the checkpoint holds other arrays than `wanted`.
      CorruptCheckpoint: an array cannot be read or is not what was written.
    """
    tables = contents["items"]
    if set(tables) == {"slow"} != set(wanted):
        raise ValueError(
            f"{path} was exported: it has slow weights and no optimizer's state, so that "
            "training cannot go on from it; use the run that it was exported from"
        )
    for item, arrays in wanted.items():
        _check_same_arrays(path, item, tables.get(item, {}), arrays)
    with context():
        loaded = _load(path, wanted)
    for item, arrays in loaded.items():
        for name, value in checksums(arrays).items():
            if value != tables[item][name]["checksum"]:
                raise CorruptCheckpoint(path, f"{item}: the bits of {name} have changed")
    return loaded


def set_aside(path: Path) -> Path:
    """Rename a corrupt checkpoint, or another file, so that nothing takes it for a good one."""
    target = path.with_name(f"{path.name}.corrupt")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.corrupt{number}")
    shutil.move(path, target)
    return target


_ROW = {"shape", "dtype", "checksum"}  # what `contents` says of an array


def _table(arrays: dict[str, Any]) -> dict[str, dict]:
    sums = checksums(arrays)
    return {
        name: {"shape": list(x.shape), "dtype": str(x.dtype), "checksum": sums[name]}
        for name, x in arrays.items()
    }


def _describes_arrays(contents: dict[str, Any]) -> bool:
    tables = contents.get("items")
    return isinstance(tables, dict) and all(
        isinstance(table, dict)
        and all(isinstance(row, dict) and row.keys() >= _ROW for row in table.values())
        for table in tables.values()
    )


def _load(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        missing = [item for item in wanted if not (path / item).is_dir()]
        reason = f"{missing[0]} is missing" if missing else inventory.damage(path, wanted)
    except PermissionError:  # to be mended, not passed over
        raise
    except OSError as error:  # a disk that fails may still give an older one
        raise CorruptCheckpoint(path, _first_line(error)) from error
    if reason:
        raise CorruptCheckpoint(path, reason)
    try:
        loaded = ocp.load_checkpointables(path.absolute(), wanted)
        return jax.block_until_ready(loaded)
    except Exception as error:  # each layer below has its own types for broken files
        raise CorruptCheckpoint(path, _first_line(error)) from error


def _check_same_arrays(path: Path, item: str, table: dict, wanted: dict) -> None:
    for name in sorted(table.keys() | wanted.keys()):
        if name not in table or name not in wanted:
            has, lacks = ("the configuration", "the checkpoint")
            if name in table:
                has, lacks = lacks, has
            raise ValueError(
                f"{path}: {item} does not fit: {has} has {name!r} and {lacks} does not; "
                "use the version of hope_jax and the configuration that wrote it"
            )
        stored = (tuple(table[name]["shape"]), table[name]["dtype"])
        asked = (tuple(wanted[name].shape), str(wanted[name].dtype))
        if stored != asked:
            raise ValueError(
                f"{path}: {item} does not fit: {name!r} is {stored[1]}{list(stored[0])} in the "
                f"checkpoint and {asked[1]}{list(asked[0])} in the configuration"
            )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
