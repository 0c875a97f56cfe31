"""Runs that are trained together end as they would have ended alone."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest

import hope_jax
from hope_jax.config import DataConfig, override
from hope_jax.config.tasks import MQARConfig
from hope_jax.data.batches import BatchIterator
from hope_jax.sweeps.collect import find_runs
from hope_jax.training import train
from hope_jax.training.signals import StopSignals
from hope_jax.training.together import train_together

SECOND = {"seed": 1, "data.seed": 1, "optim.lr": 1e-2}


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def checkpoints(workdir):
    return [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal()]


def assert_alike(one, other, logged):
    a, b = logged(one), logged(other)
    assert list(a) == list(b)
    np.testing.assert_allclose([*a.values()], [*b.values()], rtol=1e-4)
    x, y = summary(one), summary(other)
    assert x["held_out"]["loss"] == pytest.approx(y["held_out"]["loss"], rel=1e-5)
    assert x["held_out"]["write_events"] == y["held_out"]["write_events"]
    loaded = [hope_jax.load(workdir) for workdir in (one, other)]
    assert loaded[0].step == loaded[1].step
    close = lambda p, q: np.testing.assert_allclose(p, q, rtol=2e-3, atol=2e-5)
    jax.tree.map(close, loaded[0].params, loaded[1].params)


def test_runs_are_those_that_they_would_be_alone_and_catch_up(config, tmp_path, logged):
    configs = [config, override(config, SECOND)]
    alone = [tmp_path / "alone_0", tmp_path / "alone_1"]
    for one, workdir in zip(configs, alone, strict=True):
        train(one, workdir)
    together = [tmp_path / "together_0", tmp_path / "together_1"]
    # the first has come further, as when a process was killed between two checkpoints
    train(override(config, {"steps": 4}), together[0])
    (together[0] / "summary.json").unlink()
    outcomes = train_together(configs, together)
    assert [outcome.step for outcome in outcomes] == [config.steps] * 2
    assert summary(together[1])["together"] == 1  # each was a group of its own

    both = [tmp_path / "both_0", tmp_path / "both_1"]
    train_together(configs, both)
    for one, other in zip(alone, both, strict=True):
        assert_alike(one, other, logged)
    assert_alike(alone[1], together[1], logged)
    runs = {run.path.name: run for run in find_runs(tmp_path)}
    assert runs["both_0"].summary["together"] == 2
    assert runs["both_0"].tokens_per_second is None  # not the speed of one run
    assert runs["alone_0"].tokens_per_second > 0

    # one that is finished but for its summary needs no training
    (both[0] / "summary.json").unlink()
    assert train_together(configs[:1], both[:1])[0].summary["steps"] == config.steps


@pytest.mark.slow
def test_a_signal_stops_runs_that_stand_elsewhere_too(config, tmp_path, monkeypatch):
    configs, folders = [config, override(config, SECOND)], [tmp_path / "a", tmp_path / "b"]
    train(override(config, {"steps": 4}), folders[0])
    after = StopSignals.after

    def told(signals, step):
        if step in (1, 5):  # the first of each run here
            os.kill(os.getpid(), signal.SIGTERM)
        return after(signals, step)

    monkeypatch.setattr(StopSignals, "after", told)
    ahead, behind = train_together(configs, folders)
    assert (behind.step, behind.stopped) == (1, signal.SIGTERM)
    assert (ahead.step, ahead.stopped) == (4, signal.SIGTERM)
    assert summary(folders[0])["steps"] == 4  # nothing has become of it
    assert checkpoints(folders[1]) == [1]
    assert train_together(configs[:1], folders[:1])[0].step == 5
    assert not (folders[0] / "summary.json").exists()  # it goes on, so it is not finished


@pytest.mark.slow
def test_runs_of_one_order_read_along_and_each_keeps_its_place(
    config, tmp_path, monkeypatch, logged
):
    configs = [config, override(config, {"optim.lr": 1e-2})]
    alone, folders = tmp_path / "alone", [tmp_path / "a", tmp_path / "b"]
    train(configs[1], alone)
    reads, following, after = [], BatchIterator.__next__, StopSignals.after

    def counted(batches):
        reads.append(batches)
        return following(batches)

    def told(signals, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return after(signals, step)

    with monkeypatch.context() as patched:
        patched.setattr(BatchIterator, "__next__", counted)
        patched.setattr(StopSignals, "after", told)
        train_together(configs, folders)
    assert len(reads) == 3
    train(configs[1], folders[1])  # the one that read along, from its own place
    assert_alike(alone, folders[1], logged)


def test_a_run_that_diverges_does_not_stop_the_others(config, tmp_path, capsys):
    bad = override(config, {"optim.lr": 1e30, "max_bad_steps": 2})
    good = override(bad, {"optim.lr": 3e-3})
    folders = [tmp_path / "bad", tmp_path / "good"]
    diverged, trained = train_together([bad, good], folders)
    assert "2 steps in a row were not finite" in diverged.failed
    assert diverged.summary is None and not (folders[0] / "summary.json").exists()
    assert trained.summary["held_out"]["loss"] < 6
    assert "bad: 2 steps in a row" in capsys.readouterr().out


def test_none_is_touched_where_one_is_further_than_steps(config, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    (folders[1] / "checkpoints" / "9").mkdir(parents=True)
    fewer = override(config, {"steps": 4})
    with pytest.raises(ValueError, match="b is at step 9, and steps is 4"):
        train_together([fewer, override(fewer, SECOND)], folders)
    assert not folders[0].exists() and len(list(folders[1].iterdir())) == 1


def test_what_cannot_be_one_program_is_refused(config, tmp_path):
    other = override(config, {"model.dim": 64})
    with pytest.raises(ValueError, match="differ in more than name, seed, data.seed, optim.lr"):
        train_together([config, other], [tmp_path / "a", tmp_path / "b"])


@pytest.mark.slow
def test_of_a_task_each_run_ends_when_it_knows_enough(config, tmp_path):
    task = MQARConfig(pairs=2, keys=4, values=4)
    text = "data.length=20 data.task.pairs=3"
    config = dataclasses.replace(config, data=DataConfig(task=task, batch=8, length=12))
    changes = {"model.vocab_size": 9, "steps": 40, "eval_every": 2, "tests": (text,)}
    config = override(config, changes | {"enough": 1e-9})
    folders = [tmp_path / "a", tmp_path / "b"]
    outcomes = train_together([config, override(config, SECOND)], folders)
    assert [outcome.step for outcome in outcomes] == [2, 2]
    train(config, tmp_path / "alone")
    a, alone = summary(folders[0]), summary(tmp_path / "alone")
    assert a["steps"] == alone["steps"] == 2
    for key in ("loss", "accuracy", "chance", "asked"):
        assert a["held_out"][key] == pytest.approx(alone["held_out"][key], rel=1e-5)
        assert a["tests"][text][key] == pytest.approx(alone["tests"][text][key], rel=1e-5)
