"""Training that begins with the weights of another run."""

import dataclasses

import jax
import numpy as np
import pytest

import hope_jax
from hope_jax.config import override
from hope_jax.data import ByteTokenizer, prepare
from hope_jax.data.sources import TextSource
from hope_jax.training import train


@pytest.fixture(scope="module")
def first(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    config = dataclasses.replace(config, steps=4)
    train(config, folder)
    return folder


def test_it_begins_with_these_weights(config, first, logged, tmp_path):
    """With a rate of nothing they stay, and the loss of the first step is theirs."""
    still = override(config, {"start": str(first), "optim.lr": 1e-30, "steps": 2, "seed": 5})
    train(still, tmp_path / "still")
    jax.tree.map(
        np.testing.assert_array_equal,
        hope_jax.load(tmp_path / "still").params,
        hope_jax.load(first).params,
    )
    moving = override(still, {"optim.lr": 1e-2, "optim.warmup": 0})
    train(moving, tmp_path / "moving")
    loss, moved = (logged(tmp_path / name)[1][0] for name in ("still", "moving"))
    assert loss == moved < logged(first)[1][0] - 0.01


@pytest.mark.slow
def test_a_model_that_learns_within_a_text_begins_with_one_that_does_not(
    config, first, tmp_path
):
    how = {"chunks": (4, 0), "blocks": 1, "rank": 2}
    changes = {f"model.cms.in_context.{name}": value for name, value in how.items()}
    learns = override(config, {"start": str(first), "steps": 1} | changes)
    train(learns, tmp_path / "run")
    params = hope_jax.load(tmp_path / "run").params
    assert set(params["in_context"]) > {"log_rate_period_1"}
    table = hope_jax.load(first).params["embed"]["table"]
    np.testing.assert_allclose(params["embed"]["table"], table, atol=1e-2)


def test_what_does_not_fit_is_named(config, first, tmp_path):
    with pytest.raises(FileNotFoundError, match="no run or checkpoint at nowhere"):
        train(override(config, {"start": "nowhere"}), tmp_path / "a")
    with pytest.raises(ValueError, match="its blocks/cms/period_1/w_gate is 1 x 16 x 8, and"):
        changes = {"start": str(first), "model.cms.hidden": 32}
        train(override(config, changes), tmp_path / "b")
    with pytest.raises(ValueError, match="period_3/norm_scale is 1 x 16, and this model's mis"):
        changes = {"start": str(first), "model.cms.periods": (1,), "model.cms.hidden": 8}
        train(override(config, changes), tmp_path / "c")
    (tmp_path / "text.txt").write_text("Another text, of which the end is marked.\n" * 40)
    source = TextSource([tmp_path / "text.txt"], validation=0.3)
    prepare(tmp_path / "data", source, ByteTokenizer(end=True))
    changes = {"start": str(first), "data.path": str(tmp_path / "data")}
    with pytest.raises(ValueError, match="prepare them with its tokenizer"):
        train(override(config, changes | {"model.vocab_size": 257}), tmp_path / "d")
