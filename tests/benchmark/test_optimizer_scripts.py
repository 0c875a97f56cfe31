"""The scripts that compare update rules: which rates they try, and what they report."""

import argparse
import json
import math
import runpy
from pathlib import Path

import pytest

from hope_jax.config import ModelConfig, TrainConfig, override, to_dict
from hope_jax.data import ByteTokenizer, prepare
from hope_jax.data.sources import TextSource
from hope_jax.models import count_params

FOLDER = Path(__file__).parents[2] / "experiments" / "optimizers"


@pytest.fixture
def script():
    return runpy.run_path(str(FOLDER / "sweep.py"))


def rates_tried(script, loss, seeds=1):
    """(rate, seed) of all runs when the loss is a function of the rate."""
    tried = []

    def run(model, rule, rate, seed, args):
        tried.append((rate, seed))
        return loss(rate)

    script["sweep"].__globals__["run"] = run
    script["sweep"]("transformer", "m3", argparse.Namespace(seeds=seeds))
    return sorted(set(tried))


@pytest.mark.parametrize("best", [1e-4, 2.5e-3, 1e-2, 8e-2])
def test_the_row_of_rates_goes_on_until_the_best_is_inside(script, best):
    tried = [r for r, _ in rates_tried(script, lambda rate: math.log(rate / best) ** 2)]
    assert 5 <= len(tried) <= 8
    chosen = min(tried, key=lambda rate: math.log(rate / best) ** 2)
    assert chosen not in (tried[0], tried[-1]) or len(tried) == 8


def test_only_the_best_rate_gets_more_seeds_and_divergence_is_no_best(script):
    tried = rates_tried(script, lambda r: r if r < 0.03 else math.inf, seeds=3)
    assert [s for r, s in tried if r == tried[0][0]] == [0, 1, 2]
    assert len(tried) == 8 + 2


def result(rule, rate, seed, loss):
    changes = {"optim.rule": rule, "data.path": "/x/wikitext-2", "steps": 10}
    config = to_dict(override(TrainConfig(), changes | {"model.depth": 1}))
    return {
        "model": "transformer",
        "rule": rule,
        "rate": rate,
        "seed": seed,
        "loss": loss,
        "curve": [[1, 5.0], [10, loss or 9.0]],
        "config": config,
        "parameters": count_params(ModelConfig(depth=1)).total,
        "tokens": 2000,
        "cpu_seconds": 30.0,
        "compile_seconds": 10.0,
        "skipped_steps": 0,
        "diverged": None if loss else "at step 3",
        "versions": {"jax": "1"},
        "device": {"platform": "cpu"},
    }


def test_report_compares_every_rule_at_its_best(script, tmp_path):
    losses = {
        ("adamw", 0.1, 0): 2.0,
        ("adamw", 0.2, 0): 1.9,
        ("adamw", 0.2, 1): 1.7,
        ("m3", 0.1, 0): 1.5,
        ("m3", 0.4, 0): None,
    }
    for i, (key, loss) in enumerate(losses.items()):
        folder = tmp_path / "runs" / "transformer" / key[0] / str(i)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result(*key, loss)))
    script["report"](tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "sweep.md").read_text()
    best, second = [line for line in text.splitlines() if line.startswith(("| m3", "| adamw"))]
    assert best.startswith("| m3 | 0.1 | 1.500 (1.500 to 1.500, 1) | -0.300 | 3.000 | 1")
    assert best.endswith("| 0.1: 1.500, 0.4: diverged |")
    assert second.startswith(
        "| adamw | 0.2 | 1.800 (1.700 to 1.900, 2) | +0.000 | 3.000 | 8.0 |"
    )
    kept = json.loads((tmp_path / "out" / "runs.json").read_text())
    assert len(kept["runs"]) == 5 and "/x/" not in json.dumps(kept)
    assert (tmp_path / "out" / "transformer.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_sweep_trains_and_goes_on(script, tmp_path):
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 400)
    prepare(tmp_path / "data", TextSource([tmp_path / "text.txt"]), ByteTokenizer())
    args = argparse.Namespace(data=tmp_path / "data", runs=tmp_path / "runs", steps=3, seeds=1)
    first = script["run"]("transformer", "m3 alpha=0", 1e-2, 0, args)
    assert 0 < first < 6
    found = json.loads(next((tmp_path / "runs").glob("*/*/*/result.json")).read_text())
    assert found["config"]["optim"]["rule"]["alpha"] == 0.0
    assert len(found["curve"]) >= 1
    script["run"].__globals__["train"] = None  # a finished run is read and not trained
    assert script["run"]("transformer", "m3 alpha=0", 1e-2, 0, args) == first


@pytest.mark.slow
def test_step_times_are_measured(tmp_path):
    import subprocess
    import sys

    sizes = ["--width", 64, "--depth", 1, "--tokens", 256, "--length", 64, "--rounds", 2]
    done = subprocess.run(
        [sys.executable, FOLDER / "step_time.py", *map(str, sizes), "--out", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "step_time.json").read_text())
    rows = {row["rule"]: row for row in found["rows"]}
    assert rows["adamw"]["newton_schulz_flops"] == 0 < rows["m3"]["newton_schulz_flops"]
    assert (
        rows["muon"]["state_bytes"] < rows["adamw"]["state_bytes"] < rows["m3"]["state_bytes"]
    )
    assert all(row["update_seconds"] > 0 for row in found["rows"])
