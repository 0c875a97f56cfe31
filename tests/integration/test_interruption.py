"""SIGKILL and SIGTERM at a training process: nothing is lost."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

from hope_jax.config import to_json
from hope_jax.training import train
from hope_jax.training.metrics import read_log


def endless(config, **fields):
    """A configuration whose compiled step does not depend on the number of steps."""
    optim = dataclasses.replace(config.optim, schedule="constant")
    return dataclasses.replace(config, optim=optim, eval_every=100_000, **fields)


class Process:
    """`hope train` in another process."""

    def __init__(self, config, workdir, folder, environment):
        self.output = folder / "output.txt"
        recipe = folder / "recipe.json"
        recipe.write_text(to_json(config))
        arguments = ["--config", str(recipe), "--workdir", str(workdir)]
        with self.output.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hope_jax", "train", *arguments],
                env=os.environ | environment | {"JAX_PLATFORMS": "cpu"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def when(self, condition, number, seconds=600.0):  # a busy machine takes its time
        """Send a signal as soon as `condition` holds; the exit status."""
        end = time.monotonic() + seconds
        while not condition():
            assert self._process.poll() is None, self.output.read_text()
            assert time.monotonic() < end, "the run makes no progress"
            time.sleep(0.002)
        self._process.send_signal(number)
        return self._process.wait(seconds)


def checkpoints(workdir):
    return [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal()]


def test_sigkill_within_a_save_loses_nothing(config, compiled_once, tmp_path, capsys, logged):
    """Killed while a checkpoint is half written; the log is ahead of the last whole one."""
    config = endless(config, steps=30, checkpoint_every=10)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config, whole)
    process = Process(config, killed, tmp_path, compiled_once)
    within_save = lambda: any((killed / "checkpoints").glob("20.*tmp*"))
    assert process.when(within_save, signal.SIGKILL) == -signal.SIGKILL
    assert max(checkpoints(killed)) < 30

    assert train(config, killed).step == 30
    assert "going on from step" in capsys.readouterr().out
    assert logged(killed) == logged(whole)
    assert len(logged(killed)) == 30


def test_sigterm_saves_first(config, compiled_once, tmp_path, logged):
    config = endless(config, steps=100_000, checkpoint_every=100_000)
    run = tmp_path / "run"
    process = Process(config, run, tmp_path, compiled_once)
    some_steps = lambda: len(read_log(run / "metrics.jsonl")) > 20
    assert process.when(some_steps, signal.SIGTERM) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in process.output.read_text()
    assert checkpoints(run) == [max(logged(run))]
