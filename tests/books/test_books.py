"""Books in the order of time: from prepared texts to the page, with next to no steps."""

import dataclasses
import doctest
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

from books import held_out, read, recipe, report

from hope_jax.checkpoint.load import Loaded
from hope_jax.config import AttentionConfig, CMSConfig, DataConfig, override
from hope_jax.data import ByteTokenizer, open_dataset, prepare
from hope_jax.data.sources import TextSource
from hope_jax.models import LanguageModel, count_params, init_params

PERIODS = ["early", "late"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("books")
    for period, letter in zip(PERIODS, "ab", strict=True):
        books = [folder / f"{period}-{number}.txt" for number in range(6)]
        for number, book in enumerate(books):  # half of them held out
            book.write_text(f"{letter}{letter}{number} " * 200)
        prepare(folder / period, TextSource(books, validation=0.5), ByteTokenizer())
    return folder


@pytest.fixture(scope="module")
def small():
    """A configuration of next to nothing."""
    changes = {
        "model.dim": 16,
        "model.depth": 1,
        "data.length": 16,
        "steps": 40,
        "optim.lr": 3e-2,
        "optim.warmup": 5,
        "mesh.fsdp": 1,
    }
    config = override(recipe.get_config("transformer"), changes)
    model = dataclasses.replace(
        config.model, mixer=AttentionConfig(heads=2), cms=CMSConfig(hidden=16)
    )
    return dataclasses.replace(config, model=model)


@pytest.mark.parametrize("module", [held_out, report])
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_held_out_windows_lie_over_the_whole_split(data):
    split = open_dataset(
        DataConfig(path=str(data / "early"), batch=4, length=16), split="validation"
    )
    windows = split.source
    spread = held_out.Spread(windows, 12)
    numbers = [spread.number(row) for row in range(12)]
    gaps = np.diff([-numbers[0] - 1, *numbers, 2 * len(windows) - numbers[-1]])
    assert max(gaps) - min(gaps) <= 2
    np.testing.assert_array_equal(spread.row(5)["tokens"], windows.row(numbers[5])["tokens"])
    every = held_out.Spread(windows, len(windows))
    assert [every.number(row) for row in range(len(windows))] == list(range(len(windows)))


def test_losses_go_to_the_book_of_the_token_that_was_predicted():
    class Windows:
        length = 3

        def __len__(self):
            return 3

    spread = held_out.Spread(Windows(), 3)
    losses = np.array([[1.0, 1.0, 2.0], [2.0, 2.0, 5.0], [5.0, 5.0, 5.0]])
    found = held_out.by_book(losses, spread, np.array([0, 0, 0, 1, 1, 1, 3, 3, 3, 3]))
    assert found["books"] == [[0, 2, 1.0], [1, 3, 2.0], [3, 4, 5.0]]
    assert found["loss"] == losses.mean()
    # off the mean are 2 (1 - 28/9), 3 (2 - 28/9), 4 (5 - 28/9)
    off = np.array([2 * (1 - 28 / 9), 3 * (2 - 28 / 9), 4 * (5 - 28 / 9)])
    np.testing.assert_allclose(found["standard_error"], np.sqrt((off**2).sum() * 3 / 2) / 9)


def test_few_batches_reach_every_held_out_book(data, small, monkeypatch):
    params = init_params(small.model, jax.random.key(0))
    model = LanguageModel(small.model)
    loaded = Loaded(small, model, params, ByteTokenizer(), 0, {}, Path("nowhere"))
    monkeypatch.setattr(read.hope_jax, "load", lambda _: loaded)
    config = dataclasses.replace(small, eval_batches=3)
    found = read._losses(config, Path("."), data, PERIODS)
    for one in found.values():
        assert one["windows"] == 12 and one["documents"] == 3
        assert [number for number, *_ in one["books"]] == [0, 1, 2]
        assert one["standard_error"] > 0


@pytest.mark.parametrize("arm", recipe.ARMS)
def test_arms_are_of_one_size(arm):
    model = recipe.finish(recipe.get_config(arm)).model
    assert abs(count_params(model).total - recipe.PARAMETERS) <= 0.01 * recipe.PARAMETERS


def test_what_rose_alike_in_all_books_rose_surely():
    at = lambda *losses: {"books": [[n, 10, loss] for n, loss in enumerate(losses)]}
    one = {"losses": {"early": {"early": at(1.0, 2.0)}, "late": {"early": at(2.0, 3.0)}}}
    two = {"losses": {"early": {"early": at(1.0, 4.0)}, "late": {"early": at(3.0, 6.0)}}}
    assert report.error([one, two], "late", "early", since="early") == 0
    # the mean over seeds is 2.5 and 4.5: half their distance for two books
    assert report.error([one, two], "late", "early") == 1.0


@pytest.mark.slow
def test_periods_are_read_in_order_and_the_first_is_forgotten(
    data, small, tmp_path, monkeypatch
):
    path = read.read(small, data, PERIODS, 0, tmp_path / "runs")
    run = json.loads(path.read_text())
    losses = run["losses"]
    loss = lambda after, tested: losses[after][tested]["loss"]
    assert loss("early", "early") < loss("early", "late") - 0.5
    assert loss("late", "late") < loss("late", "early") - 0.5
    assert report.forgetting(run) > 0.5
    monkeypatch.setattr(read, "train", None)  # a finished run is not trained again
    assert read.read(small, data, PERIODS, 0, tmp_path / "runs") == path
    page = report.report(tmp_path / "runs", tmp_path / "out")
    assert "early 148 windows of 3 of 3 books" in page
    assert re.search(r"\| early \| \d\.\d{3} ± \d\.\d{3} \|", page)
    assert "| transformer | 1 |" in page and (tmp_path / "out/losses.png").stat().st_size > 0
    with pytest.raises(ValueError, match="holds no finished run"):
        report.report(tmp_path / "out", tmp_path / "out")
    run["losses"]["late"]["early"]["books"].pop()
    (tmp_path / "runs" / "other-seed_0.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match="differ in their periods or held-out books"):
        report.report(tmp_path / "runs", tmp_path / "out")
