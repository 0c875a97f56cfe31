"""What takes turns in peers.py: models of this package, and others in their own processes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from peer_models import PEERS

from hope_jax.benchmark import Settings
from hope_jax.benchmark.cases import model_config
from hope_jax.benchmark.training import TrainCase

WORKER = Path(__file__).with_name("peer_worker.py")
SHAPES = ("dim", "depth", "heads", "chunk", "batch")  # of `Settings`, that all share


class Ours:
    """A model of this package."""

    def __init__(self, name: str, settings: Settings, length: int):
        self._case = TrainCase(name, length, settings)
        if self._case.result.skipped:
            raise SystemExit(f"{name} at {length} tokens {self._case.result.skipped}")
        self.params = self._case.result.params
        self.tokens = settings.batch * length
        self.batch = settings.batch
        self.versions: dict[str, str] = {}  # those of the machine

    def step(self) -> dict[str, float]:
        """One training step."""
        self._case.measure()
        spent = self._case.result.spent[-1]
        return {"wall": spent.wall, "cpu": spent.cpu}

    def close(self) -> None:
        """Nothing to end."""


class Peer:
    """A public model in its own process."""

    def __init__(
        self, name: str, python: Path, ttt: Path | None, settings: Settings, length: int
    ):
        self.batch = PEERS[name].batch or settings.batch
        shapes = {n: getattr(settings, n) for n in SHAPES}
        shapes |= {"batch": self.batch, "length": length}
        shapes["hidden"] = model_config("transformer", settings).cms_hidden
        options = [item for n, value in shapes.items() for item in (f"--{n}", str(value))]
        if PEERS[name].checkout:
            options += ["--ttt", ttt]
        self._process = subprocess.Popen(
            [python, WORKER, name, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        first = self._answer()
        self.params, self.versions = first["params"], first["versions"]
        self.tokens = self.batch * length
        self.step()  # warm

    def step(self) -> dict[str, float]:
        """One training step."""
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended with status {self._process.wait()}")
        return json.loads(line)
