"""Slurm: what is submitted, and what a job does when it is told to stop or loses a process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOB, ENV = str(ROOT / "launch/slurm_job.sh"), str(ROOT / "launch/env.sh")
TRAIN = ["hope", "train", "--config", "FILE", "--workdir", "/shared/a", "--distributed"]
SWEEP = ["hope", "sweep", "FILE", "--workdir", "/shared/a"]


def test_submit(scripts):
    options = ["--nodes", "4", "--gpus", "8", "--partition", "gpu", "--account", "us"]
    options += ["--time", "24:00:00", "--grace", "600"]
    scripts.run("slurm.sh", "run", "big", *options, "--", *TRAIN, "--set", "a=('k','v')")
    (call,) = scripts.calls()
    cut = call.words.index(JOB)
    assert set(call.words[:cut]) == {
        "--job-name=big",
        "--nodes=4",
        "--ntasks-per-node=8",  # a process per GPU is what JAX expects under Slurm
        "--gpus-per-node=8",
        "--partition=gpu",
        "--account=us",
        "--time=24:00:00",
        "--signal=B:USR1@600",
        "--requeue",
        "--open-mode=append",
        "--output=big-%j.log",
        "--export=ALL",
    }
    assert call.words[cut:] == [JOB, "20", ENV, *TRAIN, "--set", "a=('k','v')"]


def test_the_rest_is_asked_of_slurm(scripts):
    scripts.stub("tail")
    (scripts.folder / "big-12.log").touch()
    (scripts.folder / "bigger-1.log").touch()
    for action in ("status", "logs", "delete"):
        scripts.run("slurm.sh", action, "big")
    assert [call.line for call in scripts.calls()] == [
        "squeue --me --name=big",
        "tail -n 100 -F big-12.log",
        "scancel --me --name=big --state=RUNNING --batch --signal=USR2",
        "scancel --me --name=big --state=PENDING",
    ]


@pytest.mark.parametrize(
    "words, said",
    [
        (["run", "big"], "say what to run after --"),
        (["run", "big", "--", *TRAIN[:-1]], "add --distributed"),
        (["run", "big", "--", "hope", "train", "--distributed"], "needs --workdir"),
        (["run", "big", "--nodes", "0", "--", *TRAIN], "--nodes 0: give at least 1"),
        (
            ["run", "big", "--nodes", "2", "--", *SWEEP],
            "a point of a sweep runs on one machine",
        ),
        (["logs", "big"], "there is no big-*.log here"),
        (["run", "Big", "--", *TRAIN], "use small letters"),
    ],
)
def test_nonsense_is_refused(scripts, words, said):
    assert said in scripts.refused("slurm.sh", *words)


def test_without_slurm(scripts):
    (scripts.bin / "sbatch").unlink()
    said = scripts.refused("slurm.sh", "run", "big", "--", *TRAIN)
    assert "there is no sbatch on PATH; run this on a login node" in said


@pytest.fixture
def cluster(scripts):
    """A machine on which a Slurm job runs."""
    scripts.stub("scontrol")
    srun = scripts.bin / "srun"
    srun.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent}/srun.py "$@"\n')
    srun.chmod(0o755)
    scripts.env |= {"SLURM_JOB_ID": "12"}
    return scripts


# Works until it is told to stop, saves for a moment, and says so.
LONG = """trap 'echo saving; sleep 0.3; echo saved $SLURM_PROCID; exit 143' TERM
echo working; while true; do sleep 0.05; done"""


@contextlib.contextmanager
def job_of(words, env, out):
    """A running job; of a test that fails, nothing goes on running."""
    process = subprocess.Popen(
        words, env=env, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def tell(cluster, number, tasks=2, times=1):
    """The status and output of a job that gets a signal while it works."""
    env = cluster.env | {"TASKS": str(tasks)}
    with job_of([JOB, "3", "bash", "-c", LONG], env, subprocess.PIPE) as process:
        for _ in range(tasks):
            assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        for _ in range(times - 1):
            while process.stdout.readline() != "saving\n":
                assert process.poll() is None
            process.send_signal(number)
        out, _ = process.communicate(timeout=120)
    return process.returncode, out


@pytest.mark.parametrize(
    "number, again", [(signal.SIGUSR1, True), (signal.SIGUSR2, False), (signal.SIGTERM, False)]
)
def test_a_job_that_is_told_to_stop_lets_all_processes_save(cluster, number, again):
    status, out = tell(cluster, number)
    assert status == 143
    assert sorted(line for line in out.splitlines() if "saved" in line) == [
        "saved 0",
        "saved 1",
    ]
    requeued = [call.line for call in cluster.calls("scontrol")]
    assert requeued == (["scontrol requeue 12"] if again else [])


def test_being_told_twice_does_not_cut_saving_short(cluster):
    status, out = tell(cluster, signal.SIGUSR1, tasks=1, times=2)
    assert status == 143 and "saved 0" in out
    assert [call.line for call in cluster.calls("scontrol")] == ["scontrol requeue 12"]


@pytest.mark.parametrize(
    "ends, before, again",
    [(0, 0, False), (134, 0, True), (1, 2, True), (134, 3, False), (2, 0, False)],
)
def test_what_begins_a_job_again(cluster, ends, before, again):
    words = ["3", "bash", "-c", f"exit {ends}"]
    done = cluster.run("slurm_job.sh", *words, status=ends, SLURM_RESTART_COUNT=str(before))
    assert [call.line for call in cluster.calls("scontrol")] == ["scontrol requeue 12"] * again
    assert ("beginning again" in done.stdout) == again


def test_a_point_of_an_array_knows_its_index(cluster):
    array = {"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "4"}
    done = cluster.run("slurm_job.sh", "1", "echo", "hope", "sweep", "FILE", **array)
    assert done.stdout == "hope sweep FILE --index 4\n"
    cluster.run("slurm_job.sh", "1", "bash", "-c", "exit 134", status=134, **array)
    assert [call.line for call in cluster.calls("scontrol")] == ["scontrol requeue 10_4"]


@pytest.mark.slow
@pytest.mark.distributed
def test_two_tasks_of_a_job_find_each_other_and_save_before_time_is_over(
    cluster, compiled_once, tmp_path
):
    from hope_jax.config import AttentionConfig, DataConfig, ModelConfig, TrainConfig, to_json
    from hope_jax.data import ByteTokenizer, prepare
    from hope_jax.data.sources import TextSource

    text = tmp_path / "text.txt"
    text.write_text("Many hands make light work, and put down what they held.\n" * 400)
    prepare(tmp_path / "data", TextSource([text]), ByteTokenizer())
    config = TrainConfig(
        model=ModelConfig(dim=16, depth=1, mixer=AttentionConfig(heads=2)),
        data=DataConfig(path=str(tmp_path / "data"), batch=8, length=16),
        steps=100_000,
        log_every=1,
        eval_every=100_000,
        checkpoint_every=100_000,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )
    (tmp_path / "config.json").write_text(to_json(config))
    with socket.socket() as free:  # JAX takes the port that belongs to the job's number
        free.bind(("127.0.0.1", 0))
        job = str(free.getsockname()[1] % 4096)
    log = tmp_path / "log"
    command = [JOB, "3", ENV, sys.executable, "-m", "hope_jax", "train", "--distributed"]
    command += ["--config", str(tmp_path / "config.json"), "--workdir", str(tmp_path / "run")]
    settings = {"TASKS": "2", "SLURM_JOB_ID": job, "PYTHONPATH": str(ROOT)}
    settings |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "PYTHONWARNINGS": "default",
    }
    env = cluster.env | compiled_once | settings
    with log.open("w") as out, job_of(command, env, out) as process:
        until = time.monotonic() + 240
        while "step 20/" not in log.read_text():
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(120) == 143, log.read_text()
    said = log.read_text()
    assert "2 processes" in said or "fsdp 2" in said, said
    assert "stopped by SIGTERM at step" in said and "and saved" in said, said
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    assert [call.line for call in cluster.calls("scontrol")] == [f"scontrol requeue {job}"]
