"""The scripts under experiments/ that measure, and the one that keeps results."""

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def run(script, *arguments, cwd=None, **variables):
    env = {**os.environ, "PYTHONPATH": str(EXPERIMENTS.parent), **variables}
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
    # optimised, as its users have it; otherwise the optimizer's many small steps cost most
    done = run(
        script, "--model", "transformer", "--length", 64, "--out", tmp_path, XLA_FLAGS=""
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "transformer_64.json").read_text())
    assert all(found["traced_seconds"][k] > 0 for k in ("matrix products", "everything else"))
    known = {place: s for place, s in found["lines"].items() if place.startswith("hope_jax/")}
    assert sum(known.values()) > 0.5 * sum(found["lines"].values())
    assert max(known, key=known.get).startswith("hope_jax/layers/linear.py")


@pytest.fixture
def peers(monkeypatch):
    """The script that measures beside PyTorch packages, as a module."""
    monkeypatch.syspath_prepend(EXPERIMENTS / "benchmarks")
    return importlib.import_module("peers")


def test_every_peer_has_a_model_of_its_kind_and_a_file(peers):
    from hope_jax.benchmark.cases import MODELS

    for name, peer in peers.PEERS.items():
        assert name not in MODELS and set(peer.ours) <= set(MODELS)
        file = EXPERIMENTS / "benchmarks" / "peer_models" / f"{peer.module}.py"
        assert "\ndef make(args: argparse.Namespace" in file.read_text()
    assert set(peers.DEFAULT) <= {*MODELS, *peers.PEERS}


def speed(model, length, tokens):
    row = {"model": model, "length": length, "batch": 4, "params": 3_460_000}
    return row | {"tokens_per_cpu_second": tokens, "tokens_per_second": tokens}


def test_a_peer_is_compared_with_ours_of_its_kind_at_its_length(peers):
    rows = [
        *(speed(name, 512, 300.0) for name in ("hope", "ttt_mlp", "delta_net")),
        speed("titans", 512, 600.0),
        speed("hope", 2048, 200.0),
        *(speed("titans-pytorch", length, 200.0) for length in (512, 2048)),
        speed("ttt-mlp-64", 512, 200.0),
        speed("gated-delta-net", 512, 100.0),
    ]
    peers.compare(rows)
    assert [row.get("ours") for row in rows] == [
        *(None,) * 5,
        {"titans": 3.0, "hope": 1.5},
        {"hope": 1.0},
        {"ttt_mlp": 1.5},
        {},
    ]
    console = Console(file=io.StringIO(), width=80)
    peers.print_table([*rows, speed("titans-pytorch-refresh", 2048, 12_345.0)], console)
    table = console.file.getvalue()
    assert "hope 1.50 x" in table and "titans-pytorch-refresh" in table and "…" not in table


def test_the_authors_code_must_be_named(tmp_path):
    script = EXPERIMENTS / "benchmarks" / "peers.py"
    done = run(script, "--models", "ttt-linear")
    assert done.returncode == 2 and "ttt-linear needs --ttt" in done.stderr
    done = run(script, "--models", "ttt-linear", "--ttt", tmp_path)
    assert done.returncode == 2 and "there is no ttt.py in" in done.stderr


@pytest.mark.slow
def test_ours_alone_need_no_other_environment(tmp_path):
    script = EXPERIMENTS / "benchmarks" / "peers.py"
    shapes = ("--dim", 32, "--depth", 1, "--lengths", 32, "--chunk", 16, "--rounds", 1)
    done = run(script, *shapes, "--models", "transformer", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "peers.json").read_text())
    assert found["settings"]["dim"] == 32
    (row,) = found["training"]
    assert row["tokens_per_cpu_second"] > 0 and len(row["spent"]) == 1


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


def test_a_run_on_a_task_has_no_bits(tmp_path):
    shutil.copy(EXPERIMENTS / "collect.py", tmp_path)
    task, broken = summary(0, 1.0), summary(0, 1.0)
    del task["held_out"]["bits_per_byte"], broken["held_out"]
    for name, found in (("task", task), ("broken", broken)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(found))
    done = run("collect.py", "bad", "broken", "--command", "hope train", cwd=tmp_path)
    assert done.returncode != 0 and not (tmp_path / "results").exists()
    done = run("collect.py", "a", "task", "--command", "hope train", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "results" / "README.md").read_text()
    assert "| [a](a) | 1 | 1,000 | 2,000 | 64 | 1.000 |  |" in table


def test_a_run_that_is_not_finished_is_told(tmp_path):
    shutil.copy(EXPERIMENTS / "collect.py", tmp_path)
    done = run("collect.py", "a", "nowhere", "--command", "hope train", cwd=tmp_path)
    assert done.returncode != 0 and "is the run finished?" in done.stderr
