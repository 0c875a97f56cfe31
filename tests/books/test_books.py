"""Books in the order of time: from prepared texts to the page, with next to no steps."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

from books import read, recipe, report

from hope_jax.config import AttentionConfig, CMSConfig, override
from hope_jax.data import ByteTokenizer, prepare
from hope_jax.data.sources import TextSource
from hope_jax.models import count_params

PERIODS = ["early", "late"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("books")
    for period, letter in zip(PERIODS, "ab", strict=True):
        text = folder / f"{period}.txt"
        text.write_text(f"{letter}{letter}{letter} " * 400)
        prepare(folder / period, TextSource([text], validation=0.3), ByteTokenizer())
    return folder


@pytest.mark.parametrize("arm", recipe.ARMS)
def test_arms_are_of_one_size(arm):
    model = recipe.finish(recipe.get_config(arm)).model
    assert abs(count_params(model).total - recipe.PARAMETERS) <= 0.01 * recipe.PARAMETERS


@pytest.mark.slow
def test_periods_are_read_in_order_and_the_first_is_forgotten(data, tmp_path, monkeypatch):
    config = override(
        recipe.get_config("transformer"),
        {
            "model.dim": 16,
            "model.depth": 1,
            "data.length": 16,
            "steps": 40,
            "optim.lr": 3e-2,
            "optim.warmup": 5,
            "mesh.fsdp": 1,
        },
    )
    model = dataclasses.replace(
        config.model, mixer=AttentionConfig(heads=2), cms=CMSConfig(hidden=16)
    )
    config = dataclasses.replace(config, model=model)
    path = read.read(config, data, PERIODS, 0, tmp_path / "runs")
    run = json.loads(path.read_text())
    losses = run["losses"]
    assert losses["early"]["early"] < losses["early"]["late"] - 0.5
    assert losses["late"]["late"] < losses["late"]["early"] - 0.5
    assert report.forgetting(run) > 0.5
    monkeypatch.setattr(read, "train", None)  # a finished run is not trained again
    assert read.read(config, data, PERIODS, 0, tmp_path / "runs") == path
    page = report.report(tmp_path / "runs", tmp_path / "out")
    assert "| transformer | 1 |" in page and (tmp_path / "out/losses.png").stat().st_size > 0
    with pytest.raises(ValueError, match="holds no finished run"):
        report.report(tmp_path / "out", tmp_path / "out")
