"""Where the numbers of a run go: JSON lines always, TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from hope_jax.checkpoint.whole_file import write_whole

LOG = "metrics.jsonl"


class MetricsWriter(Protocol):
    """Takes the numbers of one step."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Record `values` (numbers, text) under `step`."""

    def close(self) -> None:
        """Write out what is buffered."""


def open_writers(workdir: Path, start: int) -> MetricsWriter:
    """All writers of a run that goes on after step `start`; later records are dropped.

    A run that was killed has logged steps that its last checkpoint does not know. They
    are done again, to the same bits, so their first records must not stay.
    """
    writers: list[MetricsWriter] = [JsonLines(workdir / LOG, start)]
    if importlib.util.find_spec("tensorboardX") is not None:
        writers.append(TensorBoard(workdir / "tensorboard", start))
    return Several(writers)


class JsonLines:
    """One JSON object per line. What is not finite becomes null, as JSON demands."""

    def __init__(self, path: Path, start: int):
        kept = [json.dumps(record) for record in read_log(path) if record["step"] <= start]
        write_whole(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append a line; it is on its way to the disk when this returns."""
        record = {"step": step, **{name: _plain(value) for name, value in values.items()}}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Scalars for TensorBoard, through tensorboardX."""

    def __init__(self, folder: Path, start: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Record the finite numbers; text is left out."""
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is buffered."""
        self._writer.close()


class Several:
    """Writes to several writers."""

    def __init__(self, writers: Iterable[MetricsWriter]):
        self._writers = list(writers)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Record `values` in each of them."""
        for writer in self._writers:
            writer.write(step, values)

    def close(self) -> None:
        """Close all of them."""
        for writer in self._writers:
            writer.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Records of a `metrics.jsonl`; a line that a kill cut short is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int)):
        return value
    value = float(value)
    return value if math.isfinite(value) else None
