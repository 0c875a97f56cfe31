"""What is written down about the machine."""

import os

from hope_jax.training.identity import device


def test_a_system_that_does_not_say_which_processors_are_ours(monkeypatch):
    """macOS has no sched_getaffinity; a run there must not fail at its end."""
    assert device()["cpus"] >= 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert device()["cpus"] == os.cpu_count()
