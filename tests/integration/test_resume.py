"""A run that is interrupted ends exactly like one that is not."""

import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pytest

import hope_jax
from hope_jax.config import override
from hope_jax.training import train
from hope_jax.training.signals import StopSignals


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    assert train(config, workdir).step == 12
    return workdir


def test_going_on_from_a_checkpoint_gives_the_same_bits(config, whole, tmp_path, logged):
    """As after a kill between steps 4 and 8: the log is ahead of the checkpoint."""
    cut = shutil.copytree(whole, tmp_path / "cut")
    for step in ("8", "12"):
        shutil.rmtree(cut / "checkpoints" / step)
    with (cut / "metrics.jsonl").open("a") as log:
        log.write('{"step": 13, "lo')
    assert train(config, cut).step == 12
    assert logged(cut) == logged(whole)
    assert list(logged(whole)) == list(range(1, 13))
    a, b = (hope_jax.load(w) for w in (whole, cut))
    assert a.step == b.step == 12
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_another_configuration_is_refused_and_a_longer_run_is_not(
    config, whole, tmp_path, logged, monkeypatch
):
    run = shutil.copytree(whole, tmp_path / "run")
    changed = override(config, {"optim.lr": 1e-4, "model.cms.periods": (1, 6), "log_every": 2})
    with pytest.raises(ValueError) as refused:
        train(changed, run)
    assert "optim.lr: 0.003 -> 0.0001" in str(refused.value)
    assert "model.cms.periods: [1, 3] -> [1, 6]" in str(refused.value)
    assert "log_every" not in str(refused.value)
    longer = dataclasses.replace(config, steps=14)
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "after", lambda signals, step: signal.SIGTERM)
        assert train(longer, run).step == 13
    assert not (run / "summary.json").exists()  # it is no longer finished
    assert train(longer, run).step == 14
    assert json.loads((run / "summary.json").read_text())["steps"] == 14
    assert list(logged(run)) == list(range(1, 15))


def test_two_processes_in_one_folder(config, whole):
    from hope_jax.training.workdir import claim

    with claim(whole, config), pytest.raises(ValueError, match="another process"):
        train(config, whole)


def test_broken_newest_checkpoint_is_told_and_the_run_goes_on(
    config, whole, tmp_path, capsys, logged
):
    run = shutil.copytree(whole, tmp_path / "run")
    for path in (run / "checkpoints" / "12").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:50])
    assert train(config, run).step == 12
    said = capsys.readouterr().out
    assert "checkpoints/12 cannot be read: " in said and "going on from step 8" in said
    assert (run / "checkpoints" / "12.corrupt").is_dir()
    assert logged(run) == logged(whole)


def test_a_finished_run_is_only_reported_again(config, whole, capsys):
    assert train(config, whole).summary["steps"] == 12
    said = capsys.readouterr().out
    assert "held-out loss" in said and "compiled the training step" not in said
