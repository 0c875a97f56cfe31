"""Pages of the experiments that evaluate finished runs."""

import importlib
import json
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ORIGIN = {"device": {"kind": "cpu"}, "versions": {"jax": "1"}}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.syspath_prepend(EXPERIMENTS / "length")
    return importlib.import_module


def test_positions_tell_models_and_training_lengths_apart(script, monkeypatch, tmp_path):
    positions = script("positions")
    monkeypatch.setattr(positions, "OUT", tmp_path)

    def one(name, trained, loss):
        edges = positions.bins(trained, 2)
        losses = [loss] * (len(edges) - 1)
        return {"name": name, "trained": trained, "edges": edges, "tokens": 9, "on": losses}

    found = [
        one("hope-seed_0", 16, 1.0),
        one("hope-seed_1", 16, 2.0),
        one("hope-linear-seed_0", 16, 5.0),
        one("hope-seed_0", 32, 7.0),
    ]
    found = [values | ORIGIN for values in found]
    page = positions.report(found)
    short, long = page.split("Trained with 32 tokens, read with 64")
    assert "| model | 1 to 4 | 5 to 8 | 9 to 16 | 17 to 32 | seeds |" in short
    assert "| hope | 1.500 (1.000 to 2.000) |" in short and "| hope-linear | 5.000 |" in short
    assert "| hope | 7.000 |" in long and "| hope-linear" not in long
    assert (tmp_path / "positions_16.png").exists() and (tmp_path / "positions_32.png").exists()


def test_downstream_has_chance_and_seeds(script, tmp_path):
    downstream = script("downstream")

    def figure(task, value, parts=()):
        return {
            "task": task,
            "metric": "acc",
            "value": value,
            "standard_error": 0.01,
            "chance": 0.5,
            "items": 2000,
            "parts": [{"metric": "acc", "task": f"{task}/{n}", "value": v} for n, v in parts],
        }

    for name, values in {"hope-seed_0": (0.6, 0.9), "hope-seed_1": (0.7, 0.8)}.items():
        blimp = figure("blimp", values[0], (("islands", values[0]), ("number", values[1])))
        run = {"results": [blimp, figure("lambada", 0.1)], "command": "hope evaluate"}
        (tmp_path / f"{name}.json").write_text(json.dumps(run | ORIGIN))
    page = downstream.report(tmp_path)
    assert "| hope | 0.650 (0.600 to 0.700) | 0.100 (0.100 to 0.100) | 2 |" in page
    assert "| chance | 0.5 | 0.5 |" in page
    assert page.index("| number | 0.85 |") < page.index("| islands | 0.65 |")
    with pytest.raises(SystemExit, match="nothing was measured yet"):
        downstream.report(tmp_path / "nowhere")
