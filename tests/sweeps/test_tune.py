"""Rows go on beyond their ends, and the best value is run with more seeds."""

import dataclasses
import json
import math
import sys

import pytest

from hope_jax.cli.main import main
from hope_jax.config import TrainConfig, from_json, override
from hope_jax.config.sweeps import Point, point_name
from hope_jax.sweeps import plots, rows_of, runner, tune, tune_rows
from hope_jax.sweeps.collect import Run
from hope_jax.sweeps.report import Group, at_best
from hope_jax.training.lock import locked

# Stands in for training: the loss is lowest at a rate of 0.02 times the number of steps, at
# 20 steps of warmup, and at a b2 of 1.
PROGRAM = f"""#!{sys.executable}
import json, math, pathlib, sys
config = json.loads(pathlib.Path(sys.argv[5]).read_text())
rate, warmup, b2 = (config["optim"][name] for name in ("lr", "warmup", "b2"))
folder = pathlib.Path(sys.argv[7])
if rate > 0.5 or config["steps"] == 99:
    sys.exit("hope train: error: not finite")
(folder / "checkpoints").mkdir()
loss = 2 - b2 + math.log(rate / (0.02 * config["steps"])) ** 2
loss += math.log(max(warmup, 1) / 20) ** 2
summary = {{"config": config, "held_out": {{"loss": loss}}}}
(folder / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    path = tmp_path / "program"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    monkeypatch.setattr(runner.sys, "executable", str(path))


def point(steps, rate):
    changes = {"steps": steps, "optim.lr": rate}
    name = point_name(changes)
    return Point(name, changes, override(TrainConfig(), {**changes, "name": name}))


def points(*steps):
    return [point(n, rate) for n in steps for rate in (0.01, 0.005)]


def test_a_row_goes_on_to_its_best_and_takes_seeds(program, tmp_path):
    rows = rows_of(points(1, 4, 99), "optim.lr")
    assert [row.name for row in rows] == ["1", "4", "99"]
    said = []
    endings = tune_rows(
        rows, "optim.lr", tmp_path, seeds=3, at_once=2, keep_checkpoints=False, say=said.append
    )
    done = {e.point.name for e in endings if e.how == "done"}
    # the best of 1 is 0.02, and 0.04 shows it; of 4 it is 0.08, and 0.16 shows it
    rates = {1: (0.005, 0.01, 0.02, 0.04), 4: (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)}
    assert done == {
        *(f"steps_{n}-lr_{rate:g}" for n in rates for rate in rates[n]),
        *(f"steps_1-lr_0.02-seed_{seed}" for seed in (1, 2)),
        *(f"steps_4-lr_0.08-seed_{seed}" for seed in (1, 2)),
    }
    config = from_json((tmp_path / "steps_1-lr_0.02-seed_2" / runner.CONFIG).read_text())
    assert (config.seed, config.data.seed, config.optim.lr) == (2, 2, 0.02)
    assert not any(path.exists() for path in tmp_path.glob("*/checkpoints"))
    assert "99: every run failed, so there is nothing to tune" in said
    again = tune_rows(rows[:2], "optim.lr", tmp_path, seeds=3, say=said.append)
    assert {e.how for e in again} == {"finished before"}


def test_a_row_has_an_end(program, tmp_path):
    rows = rows_of(points(10_000), "optim.lr")
    endings = tune_rows(rows, "optim.lr", tmp_path, say=lambda line: None)
    assert len(endings) == tune.LONGEST_ROW
    assert tune.rating_of(tmp_path / endings[-1].point.name) == (math.inf, math.inf)


def test_a_row_takes_no_result_of_another_configuration(program, tmp_path):
    tune_rows(rows_of(points(1), "optim.lr"), "optim.lr", tmp_path, say=lambda line: None)
    others = [dataclasses.replace(p, sets={"steps": "7"}) for p in points(1)]
    said = []
    with pytest.raises(ValueError, match="steps: 1 -> 7"):
        tune_rows(rows_of(others, "optim.lr"), "optim.lr", tmp_path, say=said.append)
    assert said == []  # no run was begun


def test_a_row_with_a_run_at_work_elsewhere_is_undecided(program, tmp_path):
    rows = rows_of(points(1, 4), "optim.lr")
    said = []
    tune_all = lambda: tune_rows(rows, "optim.lr", tmp_path, say=said.append)
    busy = tmp_path / "steps_1-lr_0.005"
    busy.mkdir()
    with locked(busy):
        endings = tune_all()
    assert "1: undecided, since another process is training steps_1-lr_0.005" in said
    assert not any(line.startswith("1: best") for line in said)
    assert any(line.startswith("4: best at optim.lr=0.08") for line in said)
    of_row = {e.point.name: e.how for e in endings if e.point.config.steps == 1}
    assert of_row == {"steps_1-lr_0.005": "busy", "steps_1-lr_0.01": "done"}
    tune_all()
    assert any(line.startswith("1: best at optim.lr=0.02") for line in said)


def tuned(folder, points, field, seeds=1):
    """Names of what was run, and what was said of the row, of a stand-in's results."""
    said = []
    rows = rows_of(points, field)
    endings = tune_rows(rows, field, folder, seeds=seeds, say=said.append)
    return [e.point.name for e in endings], [line for line in said if line.startswith("all: ")]


def test_a_row_ends_where_the_range_of_its_field_does(program, tmp_path):
    names = ["b2_0.9", "b2_0.95", "b2_0.99"]
    points = [Point(name, {"optim.b2": float(name[3:])}, TrainConfig()) for name in names]
    for _ in range(2):  # repeating the sweep is no different
        run, said = tuned(tmp_path, points, "optim.b2", seeds=2)
        assert run == [*names, "b2_0.99-seed_1"]
        assert "the row ends, since optim.b2=1.032 does not fit: " in said[0]
        assert "best at optim.b2=0.99" in said[1]


def test_whole_numbers_stay_whole(program, tmp_path):
    points = [Point(f"warmup_{n:g}", {"optim.warmup": n}, TrainConfig()) for n in (10.0, 15)]
    run, _ = tuned(tmp_path, points, "optim.warmup")
    assert run == ["warmup_10", "warmup_15", "warmup_22", "warmup_32"]


def test_values_that_are_given_make_a_row_of_one_point():
    (row,) = rows_of([point(1, 0.1)], "optim.lr", [0.3, 0.2])
    assert [p.config.optim.lr for p in row.points] == [0.2, 0.3]


def test_other_seeds_are_other_than_its_own():
    base = override(TrainConfig(), {"seed": 1, "data.seed": 1})
    made = [tune._seeded(Point("lr_0.1", {"optim.lr": 0.1}, base), n).config for n in range(3)]
    assert [(c.seed, c.data.seed) for c in made] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize(
    ("rates", "field", "said"),
    [
        ((0.1, 0.2), "optim.rate", "does not set it; its fields are steps, optim.lr"),
        ((0.1,), "optim.lr", "alone in its row"),
        ((0.1, 0.0), "optim.lr", "to 0.0; use positive numbers"),
    ],
)
def test_what_cannot_be_tuned_is_said(rates, field, said):
    made = [Point(f"p{r}", {"steps": 1, "optim.lr": r}, TrainConfig()) for r in rates]
    with pytest.raises(ValueError, match=said):
        rows_of(made, field)


def test_the_best_is_sought_among_those_with_most_seeds():
    """One lucky run of a neighbour does not make it the best."""

    def group(rate, *losses):
        runs = [Run(None, {}, {"held_out": {"loss": loss}}) for loss in losses]
        return Group({"optim.lr": rate}, tuple(runs))

    lucky, tuned = group(1, 1.0), group(2, 0.99, 1.05, 1.06)
    assert at_best([lucky, tuned], "optim.lr") == [tuned]


FILE = """
from hope_jax.config import TrainConfig, grid

def get_config():
    return TrainConfig()

def sweep():
    yield from grid({"steps": [1, 4], "optim.lr": [0.01, 0.005]})
"""


def test_from_the_command_line(program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rates.py").write_text(FILE)
    assert main(["sweep", "rates.py", "--tune", "optim.lr", "--list"]) == 0
    listed = capsys.readouterr().out.split()
    assert listed == ["index", "name", "state", "0", "1", "1", "4"]
    command = ["sweep", "rates.py", "--tune", "optim.lr", "--seeds", "2", "--index", "1"]
    assert main([*command, "--discard-checkpoints"]) == 0
    assert "7 of 7 runs are in" in capsys.readouterr().out
    kept = (tmp_path / "runs" / "rates" / "command.txt").read_text()
    assert kept == "hope sweep rates.py --local 1 --tune optim.lr --seeds 2\n"
    assert json.loads((tmp_path / "runs/rates/steps_4-lr_0.08/summary.json").read_text())
    for wrong, said in (
        (["--index", "2", "--tune", "optim.lr"], "the rows are 0 to 1"),
        (["--local", "1", "--seeds", "2"], "--seeds belongs to --tune"),
        (["--local", "1", "--tune", "optim.lr", "--set", "optim.lr=1"], "leave it out"),
    ):
        assert main(["sweep", "rates.py", *wrong]) == 2
        assert said in capsys.readouterr().err


def test_what_diverged_does_not_press_the_others_into_a_line():
    figure, axes = plots._lines()
    for losses in ([1.5, 1.45], [1.52, 1.5], [1.6, 1.55], [9.0, 3.0]):
        axes.plot([1, 2], losses)
    plots._leave_out_what_is_far(axes)
    assert axes.get_ylim()[1] == pytest.approx(1.75)  # 1.45 and twice what 1.6 is above it
    assert axes.get_title(loc="right") == "2 of 8 points lie above"
