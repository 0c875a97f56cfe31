"""Points in processes of their own: what ends how, and what is not run again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hope_jax.cli.main import main
from hope_jax.config import AttentionConfig, CMSConfig, ModelConfig, TrainConfig, override
from hope_jax.config.sweeps import Point
from hope_jax.data import ByteTokenizer, prepare
from hope_jax.data.sources import TextSource
from hope_jax.sweeps import runner
from hope_jax.training.lock import locked

# Stands in for the interpreter: `PROGRAM -m hope_jax train --config FILE --workdir DIR`.
PROGRAM = """#!/bin/sh
case "$7" in
  *bad*) echo "hope train: error: no data"; exit 2 ;;
  *lost*) exit 1 ;;
  *long*) trap 'echo saved; exit 143' TERM; echo begun; while true; do sleep 0.05; done ;;
  *) printf '{"config": %s}' "$(cat "$5")" > "$7/summary.json" ;;
esac
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    path = tmp_path / "program"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    monkeypatch.setattr(runner.sys, "executable", str(path))


def points(*names):
    return [Point(name, {}, TrainConfig(name=name)) for name in names]


def test_a_failure_stops_nothing_and_what_is_finished_is_skipped(program, tmp_path):
    said = []
    names = ("one", "bad", "two")
    endings = runner.run_points(points(*names), tmp_path / "runs", 2, said.append)
    assert [e.how for e in endings] == ["done", "failed", "done"]
    assert any("bad: failed: hope train: error: no data" in line for line in said)
    again = runner.run_points(points(*names), tmp_path / "runs", 1, said.append)
    assert [e.how for e in again] == ["finished before", "failed", "finished before"]


def test_a_result_of_another_configuration_is_not_taken(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    say = lambda line: None
    of = lambda **data: [Point("one", {}, override(TrainConfig(), data))]
    mine = {"data.path": "text", "steps": 5}
    runner.run_points(of(**mine), tmp_path, say=say)
    same = mine | {"data.path": str(tmp_path / "text"), "log_every": 3}
    assert [e.how for e in runner.run_points(of(**same), tmp_path, say=say)] == [
        "finished before"
    ]
    for changes, told in (({"optim.lr": 0.5}, "optim.lr: .* -> 0.5"), ({"steps": 6}, "5 -> 6")):
        for together in (1, 2):
            with pytest.raises(ValueError, match="finished run of another conf.*\n.*" + told):
                runner.run_points(of(**mine | changes), tmp_path, say=say, together=together)
    path = tmp_path / "one" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["config"]["model"]["vocab_multiple"]  # as a version had it before that field
    path.write_text(json.dumps(summary))
    assert runner.is_finished(tmp_path, of(**mine)[0])
    path.write_text("{}")
    with pytest.raises(ValueError, match="is not the summary of a run"):
        runner.run_points(of(**mine), tmp_path, say=say)


def test_stopping_lets_runs_save_and_begins_no_more(program, tmp_path):
    said = []
    crew = runner.Crew(tmp_path, said.append, 2)
    endings = []
    thread = threading.Thread(target=lambda: endings.append(crew.run(points("long")[0])))
    thread.start()
    log = tmp_path / "long" / runner.LOG
    end = time.monotonic() + 20
    while not (log.exists() and "begun" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    crew.stop()
    thread.join(20)
    assert endings[0].how == "stopped" and "saved" in log.read_text()
    assert crew.run(points("one")[0]).how == "stopped"
    assert not (tmp_path / "one" / "summary.json").exists()


SMALL = """
from hope_jax.config import TrainConfig, grid

def get_config():
    return TrainConfig()

def sweep():
    yield from grid({"seed": [0, 1, 2]})
"""


def test_the_points_can_be_counted(tmp_path, capsys):
    (tmp_path / "small.py").write_text(SMALL)
    assert main(["sweep", str(tmp_path / "small.py"), "--count"]) == 0
    assert capsys.readouterr().out == "3\n"


def test_a_refused_sweep_leaves_the_folder_as_it_was(program, tmp_path, capsys):
    (tmp_path / "small.py").write_text(SMALL)
    command = ["sweep", str(tmp_path / "small.py"), "--workdir", str(tmp_path / "runs")]
    assert main([*command, "--index", "0"]) == 0
    made = (tmp_path / "runs" / "command.txt").read_text()
    assert main([*command, "--local", "1", "--set", "steps=7"]) == 2
    assert "seed_0 holds a finished run of another configuration" in capsys.readouterr().err
    assert (tmp_path / "runs" / "command.txt").read_text() == made
    states = []
    for more in ([], ["--set", "steps=7"]):
        assert main([*command, "--list", *more]) == 0
        states.append(capsys.readouterr().out.splitlines()[1].split(maxsplit=2)[2].strip())
    assert states == ["finished", "of another configuration"]


@pytest.mark.parametrize(
    "names, together, status",
    [
        (["bad"], 1, 2),
        (["one", "bad", "bad2"], 1, 2),
        (["lost"], 1, 1),
        (["bad", "lost"], 1, 1),
        (["bad", "bad2"], 2, 2),
        (["bad", "busy"], 1, 1),
        (["bad", "bad2", "busy"], 2, 1),
    ],
)
def test_only_mistakes_are_told_by_status_2(program, tmp_path, names, together, status):
    """Which no scheduler begins again."""
    if together > 1:  # the folders come after `-m hope_jax.sweeps.together`
        program = tmp_path / "program"
        program.write_text(PROGRAM.replace('"$7"', '"$3"'))
    text = SMALL.replace('grid({"seed": [0, 1, 2]})', repr([{"name": n} for n in names]))
    (tmp_path / "small.py").write_text(text)
    command = ["sweep", str(tmp_path / "small.py"), "--workdir", str(tmp_path / "runs")]
    busy = tmp_path / "runs" / "name_busy"
    busy.mkdir(parents=True)
    with locked(busy):
        assert main([*command, "--local", "1", "--together", str(together)]) == status


def test_a_point_at_work_elsewhere_is_left_to_it(program, tmp_path, capsys):
    (tmp_path / "small.py").write_text(SMALL)
    folder = tmp_path / "runs"
    busy = folder / "seed_1"
    busy.mkdir(parents=True)
    (busy / runner.LOG).write_text("step 1\n")
    command = ["sweep", str(tmp_path / "small.py"), "--workdir", str(folder)]
    with locked(busy):
        assert main([*command, "--index", "1"]) == 75
        assert "1/1 seed_1: busy: another process is training it\n" in capsys.readouterr().out
        assert main([*command, "--local", "2"]) == 75
        out = capsys.readouterr().out
        assert "busy: seed_1; repeat the command" in out and "2 of 3 runs are in" in out
    assert (busy / runner.LOG).read_text() == "step 1\n"
    assert sorted(path.name for path in busy.iterdir()) == ["lock", runner.LOG]
    assert main([*command, "--local", "2"]) == 0
    with locked(busy):  # what is finished may be looked at by others too
        assert main([*command, "--local", "2"]) == 0


def test_of_points_together_one_at_work_elsewhere_is_left_out(program, tmp_path):
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\nshift 2\necho $# > "$1/count"\nexit 2\n')
    (tmp_path / "runs" / "one").mkdir(parents=True)
    with locked(tmp_path / "runs" / "one"):
        some = points("one", "two", "three")
        endings = runner.run_points(some, tmp_path / "runs", 1, together=3)
    assert [(e.point.name, e.how, e.status) for e in endings] == [
        ("one", "busy", None),
        ("two", "failed", 2),
        ("three", "failed", 2),
    ]
    assert (tmp_path / "runs" / "two" / "count").read_text() == "2\n"


@pytest.mark.parametrize("together", [1, 3])
def test_two_sweeps_at_once_train_no_point_twice(tmp_path, monkeypatch, together):
    """Every run says in its folder that it began."""
    path = tmp_path / "program"
    path.write_text("""#!/bin/sh
[ $2 = hope_jax ] && set -- - - "$7"
shift 2
for folder; do
  echo begun >> "$folder/begun"
  sleep 0.1
  printf '{"config": %s}' "$(cat "$folder/point.json")" > "$folder/summary.json"
done
""")
    path.chmod(0o755)
    monkeypatch.setattr(runner.sys, "executable", str(path))
    some = points(*"abcdef")
    endings = []
    sweep = lambda: endings.extend(
        runner.run_points(some, tmp_path / "runs", 2, together=together)
    )
    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(endings) == 3 * len(some)
    assert sorted(e.point.name for e in endings if e.how == "done") == [*"abcdef"]
    assert {e.how for e in endings} <= {"done", "busy", "finished before"}
    for point in some:
        assert (tmp_path / "runs" / point.name / "begun").read_text() == "begun\n"


def test_long_names_stay_in_one_piece_in_a_pipe(tmp_path, capsys):
    name = "x" * 110
    text = SMALL.replace('grid({"seed": [0, 1, 2]})', f'[{{"data.path": "{name}"}}]')
    (tmp_path / "small.py").write_text(text)
    assert main(["sweep", str(tmp_path / "small.py"), "--list"]) == 0
    assert f" path_{name} " in capsys.readouterr().out


def test_sigterm_lets_runs_save(program, tmp_path, capsys):
    (tmp_path / "small.py").write_text(SMALL)
    folder = tmp_path / "long"

    def tell():
        end = time.monotonic() + 20
        while not any("begun" in log.read_text() for log in folder.glob("*/log.txt")):
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=tell)
    thread.start()
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(tmp_path / "small.py"), "--local", "1", "--workdir", str(folder)])
    thread.join(20)
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    said = [log.read_text() for log in folder.glob("*/log.txt")]
    assert "".join(said) == "begun\nsaved\n"  # the other points were not begun


FILE = """
from hope_jax.config import from_json, grid

def get_config():
    return from_json(r'''{config}''')

def sweep():
    yield from grid({{"optim.rule": ["adamw", "m3"]}})
    yield {{"data.path": "/nowhere"}}
"""


@pytest.mark.slow
def test_a_sweep_from_the_command_line_to_its_report(tmp_path, monkeypatch, capsys):
    from hope_jax.config import DataConfig, to_json

    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 200)
    prepare(tmp_path / "data", TextSource([tmp_path / "text.txt"]), ByteTokenizer())
    config = TrainConfig(
        model=ModelConfig(
            dim=16, depth=1, mixer=AttentionConfig(heads=2), cms=CMSConfig(hidden=16)
        ),
        data=DataConfig(path=str(tmp_path / "data"), batch=4, length=16),
        steps=3,
        eval_every=3,
        eval_batches=2,
        log_every=1,
        sample_tokens=0,
        position_plot=False,
    )
    (tmp_path / "rules.py").write_text(FILE.format(config=to_json(config)))
    assert main(["sweep", "rules.py", "--list"]) == 0
    assert "rule_m3" in capsys.readouterr().out
    assert main(["sweep", "rules.py", "--index", "1"]) == 0
    assert main(["sweep", "rules.py", "--local", "2"]) == 2  # one has no data: a mistake
    out = capsys.readouterr().out
    assert "rule_m3: finished before" in out and "failed: path__nowhere" in out
    assert main(["report", "runs/rules"]) == 0
    page = capsys.readouterr().out
    assert "2 finished runs" in page and "hope sweep rules.py" in page
    assert main(["sweep", "rules.py", "--index", "3"]) == 2
    assert "the points are 0 to 2" in capsys.readouterr().err


def test_help_of_both_commands_teaches():
    for command in ("sweep", "report"):
        done = subprocess.run(
            [sys.executable, "-m", "hope_jax", command, "--help"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "examples:" in done.stdout
