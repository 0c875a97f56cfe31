"""The page of models by tasks."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from hope_jax.config import DataConfig, TrainConfig, override, to_dict
from hope_jax.config.tasks import FormalConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "tasks"))
report = importlib.import_module("report")
TEST = "data.length=100"


def finish(folder, mixer, language, rate, seed, loss, share, **more):
    config = TrainConfig(data=DataConfig(task=FormalConfig(language=language), length=50))
    changes = {"model.mixer": mixer, "optim.lr": rate, "seed": seed, "data.seed": seed}
    changes |= {f"model.{name}": value for name, value in more.items()}
    told = "".join(f"_{value}" for value in more.values())
    run = folder / f"{mixer}{told}_{language}-{rate}-{seed}"
    run.mkdir(parents=True)
    summary = {
        "config": to_dict(override(config, changes)),
        "held_out": {"loss": loss, "accuracy": share, "chance": 0.02},
        "held_out_without_writes": None,
        "tests": {TEST: {"accuracy": share / 2}},
        "device": {"kind": "cpu"},
        "versions": {"jax": "1"},
    }
    (run / "summary.json").write_text(json.dumps(summary))


def test_models_are_rows_and_tasks_columns_at_the_best_rate(tmp_path):
    runs = tmp_path / "formal"
    for seed, share in ((0, 1.0), (1, 0.5)):
        finish(runs, "lstm", "parity", 3e-3, seed, 0.1, share)
    finish(runs, "lstm", "parity", 1e-2, 0, 0.2, 0.9)
    finish(runs, "lstm", "aa", 3e-3, 0, 0.1, 1.0)
    finish(runs, "attention", "parity", 3e-3, 0, 0.3, 0.25)
    text = report.page(runs, tmp_path / "out")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0] == "| model | parity | aa |"  # the order of the paper's table
    cells = {line.split(" | ")[0]: line for line in lines}
    assert "75.0 (50.0 to 100.0) / 37.5 (25.0 to 50.0)" in cells["| LSTM"]
    assert "100.0 / 50.0 (1 of 2 runs) |" in cells["| LSTM"]
    assert "25.0 / 12.5" in cells["| Transformer++"]
    assert list(cells)[2:] == ["| LSTM", "| Transformer++", "| chance"]
    assert "2.0" in cells["| chance"] and f"under {TEST}" in text
    assert (tmp_path / "out" / "right.png").stat().st_size > 5_000
    assert len(json.loads((tmp_path / "out" / "runs.json").read_text())) == 5


def test_configurations_of_one_mixer_are_rows_of_their_own(tmp_path):
    runs = tmp_path / "formal"
    for size, language in ((3, "parity"), (4, "aa")):  # a vocabulary belongs to its task
        kinds = {"vocab_size": size}
        finish(runs, "self_modifying", language, 3e-3, 0, 0.1, 1.0, **kinds)
        finish(runs, "lstm", language, 3e-3, 0, 0.1, 0.5, **kinds)
    objective = {"mixer.objective": "dot"}
    finish(runs, "self_modifying", "parity", 3e-3, 0, 0.1, 0.25, vocab_size=3, **objective)
    finish(runs, "self_modifying", "parity", 1e-2, 0, 0.2, 0.2, vocab_size=3, **objective)
    text = report.page(runs, tmp_path / "out")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[2:5] == [
        "| HOPE (objective l2) | 100.0 / 50.0 | 100.0 / 50.0 |",
        "| LSTM | 50.0 / 25.0 | 50.0 / 25.0 |",
        "| HOPE (objective dot) | 25.0 / 12.5 |  |",
    ]


def test_a_task_in_two_sizes_makes_two_rows(tmp_path):
    for length in (32, 64):
        more = {"mixer.heads": 2}
        finish(tmp_path / f"{length}", "attention", "parity", 3e-3, 0, 0.1, 0.5, **more)
        file = next((tmp_path / f"{length}").rglob("summary.json"))
        summary = json.loads(file.read_text())
        summary["config"]["data"]["length"] = length
        file.write_text(json.dumps(summary))
    text = report.page(tmp_path, tmp_path / "out")
    assert "| Transformer++ (length 32) |" in text and "| Transformer++ (length 64) |" in text


def test_runs_on_text_are_refused(tmp_path):
    run = tmp_path / "text"
    run.mkdir()
    summary = {"config": to_dict(TrainConfig()), "held_out": {"loss": 1.0}}
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="is a run on text"):
        report.page(tmp_path, tmp_path / "out")
