"""Sleep: slow weights take over, old knowledge is held, an interrupted one goes on."""

import dataclasses

import jax
import numpy as np
import pytest

from hope_jax.streams import Limits, Sleep, Stream, learner

# The model is not trained: at the usual limits all that it reads would be noise to it.
LIMITS = Limits(surprise=None)

TEXT = "The harbour's new master is Anna Brandt, and the old one was her uncle. "
SHORT = Sleep(steps=12, batch=2, samples=3, generated=3, save_every=4)


@pytest.fixture(scope="module")
def tired(base):
    stream = Stream.open(base, window=32, limits=LIMITS)
    stream.read(TEXT * 3)
    return stream


@pytest.fixture
def stream(tired):
    return tired.copy()


def test_what_was_read_is_in_slow_weights_afterwards(stream, base, tmp_path):
    report = stream.sleep(dataclasses.replace(SHORT, steps=40), progress=False)
    assert report.after < report.before
    changes = stream.diff()
    assert changes[4].slow > 0 and changes[4].fast == 0
    assert changes[1].total == 0  # the fastest level takes no part
    assert changes == report.changes
    assert "nats per token" in str(report)
    path = stream.save(tmp_path)
    again = Stream.load(tmp_path, checkpoint=base)
    assert again.diff() == changes and again.sleeps == 1
    with np.load(path) as archive:
        slow = {name for name in archive.files if name.startswith("slow/")}
    assert slow and all("cms/period_4" in name for name in slow)


@pytest.mark.slow
@pytest.mark.parametrize("replay", ["generated", "both"])
@pytest.mark.parametrize("penalty", ["l2", "ewc"])
def test_every_source_and_penalty(stream, replay, penalty):
    how = dataclasses.replace(SHORT, replay=replay, penalty=penalty, anchor=1.0, periods=(1, 4))
    report = stream.sleep(how, progress=False)
    assert report.changes[1].slow > 0 and report.changes[4].slow > 0
    assert np.isfinite(report.after)


@pytest.mark.slow
def test_protection_holds_what_it_protects(stream):
    def lost(**changes):
        sleeper = stream.copy()
        how = dataclasses.replace(SHORT, steps=60, lr=0.1, **changes)
        report = sleeper.sleep(how, progress=False)
        return report.base_after - report.base_before, report.changes[4].slow

    free, free_change = lost(protect=0.0)
    held, _ = lost(protect=20.0)
    _, tied_change = lost(protect=0.0, anchor=100.0)
    assert held < free
    assert tied_change < free_change


@pytest.mark.slow
def test_an_interrupted_sleep_goes_on(stream, tmp_path, monkeypatch):
    whole = stream.copy()
    whole.sleep(SHORT, progress=False)
    step, calls = learner.Learner.step, []

    def interrupted(self, *args):
        calls.append(args[-1])
        if len(calls) == 7:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(learner.Learner, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.sleep(SHORT, folder=tmp_path, progress=False)
    with pytest.raises(ValueError, match="other settings"):
        stream.sleep(dataclasses.replace(SHORT, seed=1), folder=tmp_path, progress=False)
    stream.sleep(SHORT, folder=tmp_path, progress=False)
    assert calls[7:] == [6, 7, 8, 9, 10, 11]
    assert not (tmp_path / "sleep.npz").exists()
    for a, b in zip(jax.tree.leaves(stream.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_mistakes_are_named(base, stream):
    with pytest.raises(ValueError, match="reservoir is empty"):
        Stream.open(base, limits=LIMITS).sleep(SHORT, progress=False)
    with pytest.raises(ValueError, match="sleep periods .2,.: the model has 1, 4"):
        stream.sleep(dataclasses.replace(SHORT, periods=(2,)), progress=False)
    with pytest.raises(ValueError, match="sleep steps is 0"):
        Sleep(steps=0)
    with pytest.raises(ValueError, match="both 0"):
        Sleep(task=0, distill=0)
    with pytest.raises(ValueError, match="not finite"):
        stream.sleep(dataclasses.replace(SHORT, lr=1e30), progress=False)
