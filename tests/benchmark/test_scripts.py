"""The scripts under experiments/ that measure, and the one that keeps results."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def run(script, *arguments, cwd=None):
    env = {**os.environ, "PYTHONPATH": str(EXPERIMENTS.parent)}
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
    )


@pytest.mark.slow
def test_a_step_is_taken_apart_by_source_line(tmp_path):
    script = EXPERIMENTS / "benchmarks" / "profile_step.py"
    done = run(script, "--model", "transformer", "--length", 64, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "transformer_64.json").read_text())
    assert all(found["traced_seconds"][k] > 0 for k in ("matrix products", "everything else"))
    known = {place: s for place, s in found["lines"].items() if place.startswith("hope_jax/")}
    assert sum(known.values()) > 0.5 * sum(found["lines"].values())
    assert max(known, key=known.get).startswith("hope_jax/layers/linear.py")


def summary(seed, loss):
    return {
        "parameters": 1000,
        "tokens": 2000,
        "seeds": {"parameters": seed, "data": seed},
        "config": {"data": {"length": 64}},
        "held_out": {"loss": loss, "bits_per_byte": 2 * loss},
        "held_out_without_writes": None,
        "baselines": {"byte 3-gram": 2.0},
        "skipped_steps": 0,
        "cpu_seconds": 60.0,
        "wall_seconds": 120.0,
        "device": {"platform": "cpu"},
        "versions": {"jax": "1"},
    }


def test_seeds_of_a_run_are_one_line_with_their_range(tmp_path):
    shutil.copy(EXPERIMENTS / "collect.py", tmp_path)
    for seed, loss in ((0, 1.0), (1, 2.0)):
        (tmp_path / f"run{seed}").mkdir()
        (tmp_path / f"run{seed}" / "summary.json").write_text(json.dumps(summary(seed, loss)))
    done = run("collect.py", "a/b", "run0", "run1", "--command", "hope train", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "results" / "README.md").read_text()
    assert "| [a/b](a/b) | 2 | 1,000 | 2,000 | 64 | 1.500 (1.000 to 2.000) |" in table
    assert "    hope train\n" in table
    assert (tmp_path / "results" / "a" / "b" / "seed_1" / "summary.json").exists()


def test_a_run_that_is_not_finished_is_told(tmp_path):
    shutil.copy(EXPERIMENTS / "collect.py", tmp_path)
    done = run("collect.py", "a", "nowhere", "--command", "hope train", cwd=tmp_path)
    assert done.returncode != 0 and "is the run finished?" in done.stderr
