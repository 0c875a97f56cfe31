"""Whole runs of several processes on one machine: as one process, through any loss."""

import dataclasses
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import hope_jax
from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    to_json,
)
from hope_jax.data import ByteTokenizer, prepare
from hope_jax.data.sources import TextSource
from hope_jax.training.lock import locked
from hope_jax.training.metrics import read_log

pytestmark = pytest.mark.distributed
LINE = "Many hands make light work, said the {}th of them, and put down what it held.\n"
LONG = 240  # seconds in which a run of these has to end


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("%\n".join(LINE.format(n) * 3 for n in range(20)))
    source = TextSource([folder / "text.txt"], separator="%", validation=0.2)
    prepare(folder / "data", source, ByteTokenizer())
    return TrainConfig(
        name="together",
        model=ModelConfig(
            dim=16,
            depth=1,
            mixer=AttentionConfig(heads=2),
            cms=CMSConfig(periods=(1, 3), hidden=16),
        ),
        data=DataConfig(path=str(folder / "data"), batch=8, length=16),
        optim=OptimConfig(warmup=2),
        steps=12,
        log_every=1,
        eval_every=6,
        eval_batches=2,
        checkpoint_every=4,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )


class Processes:
    """`hope train` in several processes with two devices each.

    Args:
      largest: bytes that a file may have, by process, as where the disk is full.
      workdirs: by process, in place of that of all.
    """

    def __init__(self, config, folder, count, compiled, workdir="run", largest=(), workdirs=()):
        file = folder / f"{count}.json"
        file.write_text(to_json(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        together = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(count)]
        self.logs = [
            folder / f"{len(list(folder.iterdir()))}-{count}-{i}.log" for i in range(count)
        ]
        self.running = []
        for i, log in enumerate(self.logs):
            command = [sys.executable, "-m", "hope_jax", "train", "--config", str(file)]
            command += ["--workdir", str(dict(workdirs).get(i, folder / workdir))]
            if count > 1:
                command += [*together, "--process", str(i)]
            settings = {**compiled, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
            with log.open("w") as out:
                process = subprocess.Popen(
                    command,
                    env=os.environ | settings,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            if i in largest:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest[i], largest[i]))
            self.running.append(process)

    def wait_for(self, words, process=0):
        """Until a log says so."""
        until = time.monotonic() + LONG
        while words not in self.logs[process].read_text():
            assert time.monotonic() < until, self.told()
            assert self.running[process].poll() is None, self.told()
            time.sleep(0.05)

    def end(self, seconds=LONG):
        """Exit statuses."""
        try:
            return [process.wait(seconds) for process in self.running]
        except subprocess.TimeoutExpired:
            raise AssertionError(self.told()) from None
        finally:
            for process in self.running:
                process.kill()

    def told(self):
        """The ends of all logs."""
        return "\n".join(f"-- {log.name}\n{log.read_text()[-3000:]}" for log in self.logs)


def losses(folder):
    return {r["step"]: r["loss"] for r in read_log(folder / "metrics.jsonl") if "loss" in r}


@pytest.fixture(scope="module")
def alone(config, compiled_once, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    run = Processes(config, folder, 1, compiled_once)
    assert run.end() == [0], run.told()
    return folder / "run"


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_are_one_run(config, alone, compiled_once, tmp_path, count):
    run = Processes(config, tmp_path, count, compiled_once)
    assert run.end() == [0] * count, run.told()
    found, expected = losses(tmp_path / "run"), losses(alone)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["device"]["processes"] == count
    assert summary["device"]["count"] == 2 * count
    assert "step 12" in run.logs[0].read_text()
    assert all("step 12" not in log.read_text() for log in run.logs[1:])  # one of them speaks
    hope_jax.load(tmp_path / "run")


@pytest.mark.slow
def test_sigterm_to_one_saves_in_all_and_another_number_goes_on(
    config, compiled_once, tmp_path
):
    long = dataclasses.replace(config, steps=2_000, eval_every=10_000)
    run = Processes(long, tmp_path, 2, compiled_once)
    run.wait_for("step 20/")
    run.running[1].send_signal(signal.SIGTERM)
    assert run.end() == [143, 143], run.told()
    assert "stopped by SIGTERM at step" in run.logs[0].read_text()
    stopped = max(losses(tmp_path / "run"))
    steps = stopped + 4
    on = dataclasses.replace(long, steps=steps, mesh=MeshConfig(data=2, fsdp=1))
    again = Processes(on, tmp_path, 1, compiled_once)
    assert again.end() == [0], again.told()
    assert f"going on from step {stopped}" in again.logs[0].read_text()
    assert max(losses(tmp_path / "run")) == steps


@pytest.mark.slow
def test_a_killed_process_stops_the_others_and_nothing_is_lost(config, compiled_once, tmp_path):
    long = dataclasses.replace(config, steps=100_000, eval_every=100_000)
    run = Processes(long, tmp_path, 2, compiled_once)
    run.wait_for("step 20/")
    run.running[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    statuses = run.end(seconds=180)
    assert statuses == [128 + signal.SIGABRT, -signal.SIGKILL], run.told()
    assert time.monotonic() - began < 100
    told = run.logs[0].read_text()
    assert "another process" in told and "with the same command" in told, run.told()
    short = dataclasses.replace(long, steps=40)
    again = Processes(short, tmp_path, 2, compiled_once)
    assert again.end() == [0, 0], again.told()
    assert "going on from step" in again.logs[0].read_text()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 < summary["goodput"] < 1


@pytest.mark.slow
def test_a_full_disk_of_one_leaves_the_checkpoint_before(config, compiled_once, tmp_path):
    wide = dataclasses.replace(config.model, dim=64, cms=CMSConfig((1, 3), hidden=64))
    config = dataclasses.replace(config, model=wide)
    run = Processes(config, tmp_path, 2, compiled_once)
    assert run.end() == [0, 0], run.told()
    long = dataclasses.replace(config, steps=24)
    began = time.monotonic()
    full = Processes(long, tmp_path, 2, compiled_once, largest={1: 40_000})
    statuses = full.end(seconds=180)
    assert all(statuses), full.told()
    assert time.monotonic() - began < 150
    assert "The checkpoint of step 12 is intact" in full.logs[1].read_text(), full.told()
    assert "Checkpoint 12 is intact" in full.logs[0].read_text(), full.told()
    again = Processes(long, tmp_path, 2, compiled_once)
    assert again.end() == [0, 0], again.told()
    assert "going on from step 12" in again.logs[0].read_text()


@pytest.mark.slow
def test_a_work_folder_that_is_not_shared_is_noticed(config, compiled_once, tmp_path):
    run = Processes(config, tmp_path, 2, compiled_once, workdirs={1: tmp_path / "elsewhere"})
    assert run.end() == [2, 2], run.told()
    assert all("process 1 does not see" in log.read_text() for log in run.logs), run.told()
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written_is_told_by_all(config, compiled_once, tmp_path):
    (tmp_path / "file").write_text("in the way")
    run = Processes(config, tmp_path, 2, compiled_once, workdir="file/run")
    assert run.end() == [2, 2], run.told()
    assert all("file/run" in log.read_text() for log in run.logs), run.told()


@pytest.mark.slow
def test_a_folder_in_use_is_told_by_all(config, compiled_once, tmp_path):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        run = Processes(config, tmp_path, 2, compiled_once)
        assert run.end() == [75, 75], run.told()
    assert all("another process is training in" in log.read_text() for log in run.logs)


def test_a_mistake_is_told_by_all(config, compiled_once, tmp_path):
    wrong = dataclasses.replace(config, mesh=MeshConfig(tensor=3))
    run = Processes(wrong, tmp_path, 2, compiled_once)
    assert run.end() == [2, 2], run.told()
    assert all("there are 4" in log.read_text() for log in run.logs)
