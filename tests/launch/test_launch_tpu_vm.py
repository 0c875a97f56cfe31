"""TPU VMs: which calls of gcloud are made when, and what the machines do."""

import shutil
import subprocess

import pytest

WHERE = ["--zone", "us-west4-a", "--project", "p"]
TRAIN = ["hope", "train", "--config", "FILE", "--workdir", "/mnt/work/a", "--distributed"]
QUEUED = "gcloud compute tpus queued-resources"
PLACE = "--zone=us-west4-a --project=p"
ALL = "--node=all --worker=all --batch-size=all"


@pytest.mark.parametrize(
    "name, slices, kind, runtime, nodes",
    [
        ("v5e-64", 1, "v5litepod-64", "v2-alpha-tpuv5-lite", "--node-id=run"),
        ("v5p-128", 1, "v5p-128", "v2-alpha-tpuv5", "--node-id=run"),
        ("v6e-256", 2, "v6e-256", "v2-alpha-tpuv6e", "--node-count=2 --node-prefix=run"),
        ("v4-64", 4, "v4-64", "tpu-ubuntu2204-base", "--node-count=4 --node-prefix=run"),
    ],
)
def test_create(scripts, name, slices, kind, runtime, nodes):
    scripts.run("tpu_vm.sh", "create", "run", *WHERE, "--slice", name, "--slices", str(slices))
    (call,) = scripts.calls()
    assert call.line == (
        f"{QUEUED} create run {PLACE} --accelerator-type={kind} --runtime-version={runtime} "
        f"{nodes} --scopes=https://www.googleapis.com/auth/cloud-platform"
    )


def test_create_with_options(scripts):
    options = ["--spot", "--service-account", "a@p.iam", "--runtime", "other"]
    scripts.run(
        "tpu_vm.sh", "create", "run", "--slice", "v5e-16", *options,
        HOPE_ZONE="us-west4-a", HOPE_PROJECT="p",
    )  # fmt: skip
    (call,) = scripts.calls()
    assert {"--spot", "--service-account=a@p.iam", "--runtime-version=other"} < set(call.words)
    assert PLACE in call.line


def test_setup_copies_the_last_commit_to_all_machines(scripts):
    scripts.run("tpu_vm.sh", "setup", "run", *WHERE, "--bucket", "my-bucket")
    copy, install = scripts.calls()
    assert copy.words[3] == "scp" and copy.words[4].endswith("/hope-src.tar.gz")
    assert copy.line.endswith(f"run: {PLACE} {ALL}")
    assert install.line.startswith(f"{QUEUED} ssh run {PLACE} {ALL} --command=")
    assert install.words[-1].endswith(
        "tar -xzf hope-src.tar.gz -C hope/src "
        "&& bash hope/src/launch/worker.sh setup run --bucket my-bucket"
    )


def test_nothing_is_installed_where_copying_failed(scripts):
    scripts.answer("scp", answers=[(1, "")])
    scripts.run("tpu_vm.sh", "setup", "run", *WHERE, status=1)
    assert [call.words[3] for call in scripts.calls()] == ["scp"]


def test_run_and_the_rest(scripts):
    words = [*TRAIN, "--set", "model.mixer.adaptive=('k','v')"]
    options = ["--env", "A=b c", "--secret", "WANDB_API_KEY=wandb", "--grace", "120"]
    scripts.run("tpu_vm.sh", "run", "run", *WHERE, *options, "--", *words)
    (call,) = scripts.calls()
    remote = call.words[-1].removeprefix("--command=")
    # the words that the shell over there sees
    seen = subprocess.run(
        ["bash", "-c", remote.replace("bash hope/src/launch/worker.sh", "printf '%s\\0'")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")[:-1]
    assert seen == ["run", "run", "--grace", "120", *options[:4], "--", *words]
    for action in ("status", "logs", "stop", "delete"):
        scripts.run("tpu_vm.sh", action, "run", *WHERE)
    describe, state, logs, stop, delete = [call.line for call in scripts.calls()[1:]]
    assert describe == f"{QUEUED} describe run {PLACE} --format=yaml(name,state)"
    worker = "--command=bash hope/src/launch/worker.sh"
    assert state == f"{QUEUED} ssh run {PLACE} {ALL} {worker} state run"
    assert logs == f"{QUEUED} ssh run {PLACE} --node=0 --worker=0 {worker} logs run"
    assert stop == f"{QUEUED} ssh run {PLACE} {ALL} {worker} stop run"
    assert delete == f"{QUEUED} delete run {PLACE} --force --quiet"


def watch(scripts, **options):
    return scripts.run(
        "tpu_vm.sh", "watch", "run", *WHERE, "--slice", "v5e-16", "--spot", "--every", "0",
        "--", *TRAIN, **options,
    )  # fmt: skip


def actions(scripts):
    """What was called, but for questions."""
    found = []
    for call in scripts.calls():
        command = call.words[-1] if call.words[3] == "ssh" else ""
        if call.words[3] == "list" or " state run" in command:
            continue
        found.append(
            command.rpartition("worker.sh ")[2].split()[0] if command else call.words[3]
        )
    return found


def test_watch_makes_all_of_it_and_again_when_machines_are_taken_away(scripts):
    scripts.answer(
        "state.state",
        answers=[
            (0, ""),
            (1, ""),  # no answer: nothing is done
            (0, "WAITING_FOR_RESOURCES\n"),
            (0, "PROVISIONING\n"),
            *[(0, "ACTIVE\n")] * 3,
            (0, "SUSPENDING\n"),
            (0, "SUSPENDED\n"),
            (0, "DELETING\n"),
            (0, ""),
            (0, "ACTIVE\n"),
        ],
    )
    two = lambda a, b: (0, f"state run {a}\nstate run {b}\n")
    scripts.answer(
        "worker.sh state",
        answers=[
            (0, "bash: hope/src/launch/worker.sh: No such file or directory\n"),
            two("running", "running"),
            (255, ""),  # a machine that does not answer is not one where nothing runs
            two("absent", "running"),  # one of them is new
            two("running", "finished"),
            two("finished", "finished"),
        ],
    )
    done = watch(scripts)
    begin = ["scp", "setup", "run"]
    assert actions(scripts) == ["create", *begin, "delete", "create", *begin]
    assert "run unreachable" in done.stdout and "UNKNOWN" in done.stdout


def test_watch_ends_where_the_program_fails(scripts):
    scripts.answer("state.state", answers=[(0, "ACTIVE\n")])
    scripts.answer("worker.sh state", answers=[(0, "state run running\nstate run failed\n")])
    done = watch(scripts, status=2)
    assert "launch/tpu_vm.sh logs run" in done.stderr and actions(scripts) == []


def test_watch_goes_on_when_gcloud_refuses(scripts):
    scripts.answer("state.state", answers=[(0, ""), (0, ""), (0, "ACTIVE\n")])
    scripts.answer("create", answers=[(1, "no quota\n"), (0, "")])
    scripts.answer("scp", answers=[(1, ""), (0, "")])
    states = ["", "", "state run finished\n"]
    scripts.answer("worker.sh state", answers=[(0, state) for state in states])
    watch(scripts)
    assert actions(scripts) == ["create", "create", "scp", "scp", "setup", "run"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["create", "run", "--slice", "v5e-16"], "create needs --zone"),
        (["create", "run", *WHERE], "create needs --slice"),
        (["create", "run", *WHERE, "--slice", "tpu7x-128"], "no TPU VMs of tpu7x, only GKE"),
        (["create", "run", *WHERE, "--slice", "v5e-512"], "the largest slice of v5e has 256"),
        (["create", "Run", *WHERE], "use small letters"),
        (["setup", "run", *WHERE, "--bucket", "b", "--nfs", "h:/s"], "give one of them"),
        (["run", "run", *WHERE], "say what to run after --"),
        (["run", "run", *WHERE, "--", *TRAIN[:-1]], "add --distributed"),
        (["run", "run", *WHERE, "--", "hope", "train"], "needs --workdir"),
        (["run", "run", *WHERE, "--", *TRAIN, "--workdir", "runs/a"], "is not below /mnt/work"),
        (
            ["watch", "run", *WHERE, "--slice", "v5e-16", "--", *TRAIN, "--workdir=/mnt/works"],
            "--workdir /mnt/works is not below /mnt/work",
        ),
        (["status", "run", *WHERE, "--every", "soon"], "--every soon: give whole seconds"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(scripts, words, said):
    assert said in scripts.refused("tpu_vm.sh", *words)


def test_without_gcloud(scripts):
    (scripts.bin / "gcloud").unlink()
    said = scripts.refused("tpu_vm.sh", "status", "run", *WHERE)
    assert "there is no gcloud on PATH" in said
    scripts.stub("gcloud")


@pytest.fixture
def machine(scripts):
    """A TPU VM: sudo, systemd and gcloud that note, and a hope that tells what it got."""
    scripts.stub("sudo", "systemctl", "journalctl")
    venv = scripts.folder / "hope" / "venv" / "bin"
    venv.mkdir(parents=True)
    hope = venv / "hope"
    hope.write_text('#!/bin/sh\necho "$KEY $A"\nprintf "%s\\n" "$@"\n')
    hope.chmod(0o755)
    (scripts.folder / "hope" / "src").mkdir()
    shutil.copytree(
        scripts.root / "launch", scripts.folder / "hope" / "src" / "launch", dirs_exist_ok=True
    )
    return scripts


def test_a_machine_runs_the_program_as_a_service(machine):
    words = ["hope", "train", "--set", "a=('k','v')", "--set", "b=$HOME"]
    machine.run(
        "worker.sh", "run", "run", "--grace", "77", "--env", "A=b c", "--secret", "KEY=name/3",
        "--", *words,
    )  # fmt: skip
    unit = next(call for call in machine.calls("sudo") if call.words[0] == "tee")
    assert unit.words == ["tee", "/etc/systemd/system/hope-run.service"]
    settings = dict(line.split("=", 1) for line in unit.stdin.splitlines() if "=" in line)
    assert settings["Restart"] == "on-failure" and settings["RestartPreventExitStatus"] == "2"
    assert settings["TimeoutStopSec"] == "77" and settings["KillMode"] == "mixed"
    script = machine.folder / "hope" / "runs" / "run.sh"
    assert settings["ExecStart"] == f"/bin/bash {script}"
    after = [call.line for call in machine.calls("sudo")][1:]
    assert after == [
        "sudo systemctl daemon-reload",
        "sudo systemctl enable --quiet hope-run",
        "sudo systemctl reset-failed hope-run",
        "sudo systemctl restart hope-run",
    ]
    if verify := shutil.which("systemd-analyze"):
        file = machine.folder / "hope-run.service"
        file.write_text(unit.stdin)
        done = subprocess.run([verify, "verify", file], capture_output=True, text=True)
        assert "hope-run.service:" not in done.stderr, done.stderr
    # What the service does: the secret comes from its store, and is in no command.
    machine.answer("gcloud secrets", answers=[(0, "s3cr3t-0123456789\n")])
    done = subprocess.run(
        ["bash", script], env=machine.env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["s3cr3t-0123456789 b c", *words[1:]]
    (call,) = machine.calls("gcloud")
    assert call.line == "gcloud secrets versions access 3 --secret=name"
    assert "s3cr3t" not in script.read_text()


def test_a_secret_that_cannot_be_fetched_ends_the_program_before_it_begins(machine):
    machine.run("worker.sh", "run", "run", "--secret", "KEY=name", "--", "hope", "train")
    machine.answer("gcloud secrets", answers=[(1, "")])
    script = machine.folder / "hope" / "runs" / "run.sh"
    done = subprocess.run(["bash", script], env=machine.env, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""


@pytest.mark.parametrize(
    "load, active, sub, word",
    [
        ("not-found", "inactive", "dead", "absent"),
        ("loaded", "inactive", "dead", "absent"),
        ("loaded", "active", "running", "running"),
        ("loaded", "activating", "auto-restart", "running"),
        ("loaded", "deactivating", "stop-sigterm", "running"),
        ("loaded", "active", "exited", "finished"),
        ("loaded", "failed", "failed", "failed"),
    ],
)
def test_a_machine_says_how_its_run_is(machine, load, active, sub, word):
    said = f"LoadState={load}\nActiveState={active}\nSubState={sub}\n"
    machine.answer("systemctl show", answers=[(0, said)])
    assert machine.run("worker.sh", "state", "run").stdout == f"state run {word}\n"


def test_installing_twice_mounts_once(machine, tmp_path):
    machine.stub("mountpoint", "lsb_release", "curl")
    machine.answer("mountpoint", answers=[(1, ""), (0, "")])
    machine.answer("lsb_release", answers=[(0, "jammy\n")])
    python = machine.bin / "python3"
    python.unlink()
    machine.stub("python3")
    fstab = tmp_path / "fstab"
    fstab.write_text("# nothing\n")
    worker = machine.folder / "hope" / "src" / "launch" / "worker.sh"
    worker.write_text(worker.read_text().replace("/etc/fstab", str(fstab)))
    again = []
    for _ in range(2):
        before = len(machine.calls())
        subprocess.run([worker, "setup", "run", "--bucket", "b"], env=machine.env, check=True)
        again = machine.calls()[before:]
        for call in again:  # what tee would have done
            if call.words[:2] == ["tee", "-a"]:
                fstab.write_text(fstab.read_text() + call.stdin)
        machine.stub("gcsfuse")
    lines = [line for line in fstab.read_text().splitlines() if " /mnt/work " in line]
    assert len(lines) == 1 and lines[0].startswith("b /mnt/work gcsfuse rw,_netdev,allow_other")
    said = [call.line for call in machine.calls()]
    assert sum("sudo apt-get install" in line for line in said) == 1
    assert sum(line == "sudo mount /mnt/work" for line in said) == 1
    assert [call.program for call in again if call.program != "mountpoint"] == ["python3"] * 3
    assert any("hope_jax[tpu,tensorboard] @ file://" in line for line in said)
