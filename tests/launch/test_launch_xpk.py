"""xpk: its words for slices, and the program as one command."""

import shlex

import pytest

WHERE = ["--cluster", "pods", "--project", "p", "--zone", "z"]
TRAIN = ["hope", "train", "--config", "FILE", "--workdir", "/work/a", "--distributed"]


@pytest.mark.parametrize(
    "name, kind", [("v5e-64", "v5litepod-64"), ("v5p-256", "v5p-256"), ("tpu7x-128",) * 2]
)
def test_run(scripts, name, kind):
    words = [*TRAIN, "--set", "a=('k','v')", "--set", 'b="$x"']
    options = ["--slice", name, "--slices", "2", "--image", "i", "--storage", "work"]
    scripts.run("xpk.sh", "run", "big", *WHERE, *options, "--env", "A=b c", "--", *words)
    (call,) = scripts.calls()
    assert call.words[:6] == [
        *["workload", "create", "--workload=big"],
        *["--cluster=pods", "--project=p", "--zone=z"],
    ]
    assert {f"--tpu-type={kind}", "--num-slices=2", "--docker-image=i"} < set(call.words)
    assert {"--max-restarts=100", "--termination-grace-period-seconds=600"} < set(call.words)
    assert {"--storage=work", "--env=A=b c"} < set(call.words)
    command = call.words[-1].removeprefix("--command=")
    assert shlex.split(command) == ["exec", "/hope/launch/env.sh", *words]


def test_the_rest(scripts):
    scripts.run("xpk.sh", "create", "big", *WHERE, "--slice", "v6e-16", "--spot")
    for action in ("status", "delete", "logs"):
        scripts.run("xpk.sh", action, "big", *WHERE)
    create, status, delete, logs = [call.line for call in scripts.calls()]
    where = "--cluster=pods --project=p --zone=z"
    assert create == f"xpk cluster create {where} --tpu-type=v6e-16 --num-slices=1 --spot"
    assert status == f"xpk workload list {where}"
    assert delete == f"xpk workload delete --workload=big {where}"
    assert logs.startswith("kubectl logs --selector jobset.sigs.k8s.io/jobset-name=big,")


@pytest.mark.parametrize(
    "words, said",
    [
        (["run", "big", "--slice", "v5e-16"], "run needs --cluster"),
        (["run", "big", *WHERE], "run needs --slice"),
        (["run", "big", *WHERE, "--slice", "v5e-16"], "run needs --image"),
        (
            ["run", "big", *WHERE, "--slice", "v5e-16", "--image", "i"],
            "say what to run after --",
        ),
        (["run", "big", *WHERE, "--secret", "A=b"], "there is no option --secret"),
        (["run", "a" * 41, *WHERE, "--slice", "v5e-16", "--image", "i", "--", *TRAIN], "40"),
    ],
)
def test_nonsense_is_refused(scripts, words, said):
    assert said in scripts.refused("xpk.sh", *words)


def test_without_xpk(scripts):
    (scripts.bin / "xpk").unlink()
    said = scripts.refused("xpk.sh", "status", "big", *WHERE)
    assert "there is no xpk on PATH; install it: pip install xpk" in said
