"""What holds of every script: it is clean, it teaches, it has a dry run, it keeps secrets."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "launch"
FILES = sorted(FOLDER.glob("*.sh"))
PROGRAMS = [path.name for path in FILES if path.name != "common.sh"]
TRAIN = ["hope", "train", "--config", "FILE", "--workdir", "/work/a", "--distributed"]
ON_VM = [*TRAIN[:-2], "/mnt/work/a", "--distributed"]
SWEEP = ["hope", "sweep", "FILE", "--workdir", "/work/a"]
# A good call of every action that starts something or ends it.
CALLS = {
    "env.sh": [["--dry-run", *TRAIN]],
    "jobset.sh": [
        [action, "run", "--slice", "v5e-16", "--image", "I", "--claim", "c", "--", *TRAIN]
        for action in ("apply", "status", "logs", "delete")
    ],
    "slurm.sh": [
        [action, "run", "--", *TRAIN] for action in ("run", "status", "logs", "delete")
    ],
    "slurm_job.sh": [["--dry-run", "3", *TRAIN]],
    "sweep.sh": [
        ["local", "run", "--", *SWEEP],
        ["gke", "run", "--points", "3", "--slice", "v5e-1", "--image", "I", "--claim", "c"]
        + ["--", *SWEEP],
        ["slurm", "run", "--points", "3", "--", *SWEEP],
        ["status", "run"],
        ["delete", "run"],
    ],
    "tpu_vm.sh": [
        [action, "run", "--zone", "z", "--slice", "v5p-64", "--", *ON_VM]
        for action in ("watch", "create", "setup", "run", "status", "logs", "stop", "delete")
    ],
    "worker.sh": [
        [action, "run", "--bucket", "b", "--", *TRAIN]
        for action in ("setup", "run", "logs", "stop")
    ],
    "xpk.sh": [
        ["run", "run", "--cluster", "c", "--slice", "v5e-16", "--image", "I", "--", *TRAIN],
        *[
            [action, "run", "--cluster", "c", "--slice", "v5e-16"]
            for action in ("create", "status", "logs", "delete")
        ],
    ],
}  # fmt: skip
EVERY = [(script, words) for script, calls in CALLS.items() for words in calls]
IDS = [f"{script} {words[0]}" for script, words in EVERY]


def dry(words):
    """The same, only printed."""
    if "--dry-run" in words:
        return words
    cut = words.index("--") if "--" in words else len(words)
    return [*words[:cut], "--dry-run", *words[cut:]]


def test_every_program_is_tried_here():
    assert sorted(CALLS) == PROGRAMS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_shell_and_shellcheck_have_nothing_to_say(path):
    subprocess.run(["bash", "-n", path], check=True)
    beside = Path(sys.executable).with_name("shellcheck")
    shellcheck = str(beside) if beside.exists() else shutil.which("shellcheck")
    assert shellcheck, "install the extra: pip install '.[test]'"
    done = subprocess.run(
        [shellcheck, "--external-sources", path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    text = path.read_text()
    if path.name != "common.sh":
        assert "\nset -euo pipefail\n" in text and os.access(path, os.X_OK)


@pytest.mark.parametrize("script", PROGRAMS)
def test_help_teaches_and_knows_every_option(script, scripts):
    said = scripts.run(script, "--help").stdout
    assert f"launch/{script}" in said and "#" not in said.split("\n")[0]
    text = (FOLDER / script).read_text()
    if parsed := re.search(r'^parse "([^"]*)" \\?\s*"([^"]*)"', text, re.M):
        for action in parsed[1].split():
            assert re.search(rf"\b{action}\b", said), action
        for option in parsed[2].split():
            assert "--" + option.rstrip("=") in said, option
        assert "--dry-run" in said
    assert scripts.calls() == []


@pytest.mark.parametrize("script, words", EVERY, ids=IDS)
def test_a_dry_run_prints_what_a_shell_can_read_and_calls_nothing(script, words, scripts):
    scripts.stub("sudo", "systemctl", "journalctl", "srun", "scontrol", "hope")
    for tool in ("gcloud", "kubectl", "xpk", "sbatch", "squeue", "scancel"):
        (scripts.bin / tool).unlink()  # nor does it need them
    before = sorted(path for path in scripts.folder.rglob("*"))
    out = scripts.run(script, *dry(words)).stdout
    assert out
    subprocess.run(["bash", "-n"], input=out, text=True, check=True)
    assert scripts.calls() == []
    assert sorted(path for path in scripts.folder.rglob("*")) == before
    scripts.stub("gcloud")


@pytest.mark.parametrize("script, words", EVERY, ids=IDS)
def test_a_secret_in_the_environment_is_in_no_command(script, words, scripts):
    scripts.stub("sudo", "systemctl", "journalctl", "srun", "scontrol", "hope", "tail", "curl")
    scripts.answer("state.state", answers=[(0, "ACTIVE\n")])
    scripts.answer("worker.sh state", answers=[(0, "state run finished\n")])
    secret = "s3cr3t-0123456789"
    (scripts.folder / "run-1.log").touch()
    if script in ("env.sh", "slurm_job.sh"):
        words = [word for word in words if word != "--dry-run"]
    if script == "worker.sh" and words[0] == "setup":
        words = dry(words)  # would install
    done = scripts.run(script, *words, WANDB_API_KEY=secret, SLURM_JOB_ID="7")
    said = done.stdout + done.stderr + "".join(c.line + c.stdin for c in scripts.calls())
    assert secret not in said
    if words != dry(words):
        assert scripts.calls() or script == "worker.sh"


@pytest.mark.parametrize(
    "script", [name for name in PROGRAMS if "parse " in (FOLDER / name).read_text()]
)
def test_a_secret_on_a_command_line_is_refused_and_not_repeated(script, scripts):
    secret = "s3cr3t-0123456789"
    words = next(words for words in CALLS[script] if "--" in words)
    said = scripts.refused(script, *words, f"--key={secret}", WANDB_API_KEY=secret)
    assert "$WANDB_API_KEY is on the command line" in said and secret not in said
    if "env=" in (FOLDER / script).read_text():
        cut = words.index("--")
        words = [*words[:cut], "--env", "HF_TOKEN=abc", *words[cut:]]
        said = scripts.refused(script, *words)
        assert "a secret does not belong on a command line" in said and "abc" not in said


def test_the_program_takes_the_place_of_env_sh_and_hears_signals(scripts):
    wait = "import os, signal, sys, time; signal.signal(15, lambda n, f: sys.exit(143)); "
    wait += "print(os.getpid(), os.environ['PYTHONUNBUFFERED'], flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [FOLDER / "env.sh", "python3", "-c", wait],
        env=scripts.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == f"{process.pid} 1\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    process.stdout.close()


def test_env_sh_leaves_what_is_set(scripts):
    show = 'echo "$PYTHONUNBUFFERED $JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS $(ulimit -n)"'
    done = scripts.run("env.sh", "bash", "-c", show, PYTHONUNBUFFERED="2")
    unbuffered, seconds, files = done.stdout.split()
    assert (unbuffered, seconds) == ("2", "1") and int(files) >= 1024
