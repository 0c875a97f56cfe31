"""Useful time and the rest, over parts and losses; hosts that let devices wait."""

import time

import pytest

from hope_jax.training import clock as clocks
from hope_jax.training import hosts
from hope_jax.training.clock import Clock
from hope_jax.training.hosts import InputTimes
from hope_jax.training.progress import ProgressDisplay


@pytest.fixture
def now(monkeypatch):
    """A clock that goes on when told to."""

    class Now:
        seconds = 100.0

        def pass_by(self, seconds):
            self.seconds += seconds

    time_now = Now()
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: time_now.seconds)
    return time_now


def test_only_steps_are_useful(now):
    clock = Clock(None)
    now.pass_by(10)  # compiling
    with clock.training():
        now.pass_by(20)
        with clock.paused():
            now.pass_by(5)  # evaluating
        now.pass_by(5)
        assert clock.read()["useful_seconds"] == 25
    now.pass_by(10)
    read = clock.read()
    assert (read["wall_seconds"], read["useful_seconds"]) == (50, 25)
    assert clock.goodput() == 0.5


def test_what_a_kill_took_is_not_useful(now, tmp_path):
    first = Clock(tmp_path)
    with first.training():
        now.pass_by(10)
        saved = first.read()  # goes into a checkpoint
        now.pass_by(30)  # steps that are lost
        first.save()
    now.pass_by(1000)  # until somebody starts it again
    second = Clock(tmp_path, **saved)
    with second.training():
        now.pass_by(10)
        assert second.goodput() == 20 / 50
    (tmp_path / clocks.FILE).write_text("{")
    assert Clock(tmp_path, **saved).goodput() == 1


def test_a_run_that_begins_anew_has_no_time_of_another(now, tmp_path):
    (tmp_path / clocks.FILE).write_text('{"wall_seconds": 5000}')
    clock = Clock(tmp_path)
    now.pass_by(10)
    assert clock.read()["wall_seconds"] == 10
    clock.save()
    assert Clock(tmp_path, wall_seconds=4.0).read()["wall_seconds"] == 10


def test_a_clock_that_begins_later_counts_from_there(now):
    clock = Clock(None, wall_seconds=4.0)
    now.pass_by(50)  # of another program
    clock.begin()
    now.pass_by(6)
    assert clock.read()["wall_seconds"] == 10


def test_the_slowest_process_is_named(monkeypatch):
    times = InputTimes()
    with times.measured():
        time.sleep(0.02)
    monkeypatch.setattr(hosts, "of_each", lambda own: [5.0, 5.0, own + 300, 6.0])
    report = times.report()
    assert report["input_ms/slowest_process"] == 2 and report["input_ms/slowest"] > 319
    assert report["input_ms/median"] == 5.5
    said = []
    display = ProgressDisplay(10)
    monkeypatch.setattr(display, "say", said.append)
    display.log(3, {"loss": 1.0, **report})
    assert "process 2 is slow: 3" in said[0]
    display.log(4, {"loss": 1.0, **InputTimes().report(), "input_ms/median": 5.0})
