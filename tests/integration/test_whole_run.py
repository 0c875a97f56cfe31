"""A whole run: it learns, tells, draws, and can be loaded."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hope_jax
from hope_jax.config import ModelConfig, SelfModifyingConfig
from hope_jax.data import make_tokenizer, open_dataset, prepare
from hope_jax.data.sources import TextSource
from hope_jax.training import NonFinite, train
from hope_jax.training.evaluate import Evaluator
from hope_jax.training.finite import BadSteps
from hope_jax.training.metrics import read_log
from hope_jax.training.objective import token_losses


@pytest.fixture(scope="module")
def hope(config, tmp_path_factory):
    """A tiny HOPE with everything that a run can do."""
    mixer = SelfModifyingConfig(heads=1, chunk=8, memory="linear")
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, mixer=mixer),
        accumulate=2,
        sample_tokens=4,
        position_plot=True,
    )
    workdir = tmp_path_factory.mktemp("hope")
    return train(config, workdir), workdir


def test_it_starts_at_chance_and_learns(hope):
    _, workdir = hope
    log = [r for r in read_log(workdir / "metrics.jsonl") if "loss" in r]
    assert abs(log[0]["loss"] - math.log(256)) < 0.1
    assert log[-1]["loss"] < log[0]["loss"] - 0.2
    keys = {"grad_norm", "lr", "update_norm/period_1", "update_norm/period_3"}
    keys |= {"tokens_per_second", "mfu", "stats/eta", "stats/alpha", "stats/write_events"}
    assert keys <= set(log[-1])
    assert 0 < log[0]["stats/eta"] < 1 and 0 < log[0]["stats/alpha"] <= 1
    assert log[0]["stats/write_events"] > 0


def test_the_summary_says_everything(hope):
    outcome, workdir = hope
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary == json.loads(json.dumps(outcome.summary)) and outcome.stopped is None
    keys = {"config", "versions", "device", "seeds", "wall_seconds", "cpu_seconds"}
    keys |= {"parameters", "steps", "tokens", "compile_seconds", "peak", "sample"}
    assert keys <= set(summary)
    on, off = summary["held_out"], summary["held_out_without_writes"]
    assert on["write_events"] > 0 and off["write_events"] == 0
    assert len(on["loss_by_position"]) == len(off["loss_by_position"]) == 16
    assert on["loss"] != off["loss"]
    assert on["bits_per_byte"] == pytest.approx(on["loss"] / math.log(2))
    assert set(summary["baselines"]) == {"byte 3-gram", "byte 5-gram"}
    for name in ("loss.png", "loss_by_position.png"):
        assert (workdir / name).stat().st_size > 5_000


def test_load_gives_what_was_trained(hope):
    outcome, workdir = hope
    loaded = hope_jax.load(workdir)
    assert (loaded.step, loaded.config.name) == (12, "tiny")
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("fox")) == b"fox"
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {jnp.dtype("float32")}
    held_out = open_dataset(loaded.config.data, loaded.tokenizer, split="validation")
    found = Evaluator(loaded.model)(loaded.params, held_out, 10_000)
    assert found.loss == pytest.approx(outcome.summary["held_out"]["loss"], rel=1e-6)
    one = hope_jax.load(workdir / "checkpoints" / "8")
    assert one.step == 8


def test_a_checkpoint_may_be_kept_under_another_name(hope, tmp_path, monkeypatch):
    best = shutil.copytree(hope[1] / "checkpoints" / "8", tmp_path / "best")
    assert hope_jax.load(best).step == 8
    monkeypatch.chdir(best)
    assert hope_jax.load(".").step == 8


def test_training_and_evaluation_have_one_loss(hope):
    """The loss that is logged for a step is what evaluation gives for its batch."""
    loaded = hope_jax.load(hope[1] / "checkpoints" / "8")
    batches = iter(open_dataset(loaded.config.data, split="train"))
    batch = [next(batches) for _ in range(9)][-1]
    batches.close()
    loss_BT, _ = jax.jit(lambda p, b: token_losses(loaded.model, p, b))(loaded.params, batch)
    logged = {r["step"]: r for r in read_log(hope[1] / "metrics.jsonl") if "loss" in r}
    assert float(loss_BT.mean()) == pytest.approx(logged[9]["loss"], rel=1e-5)


def test_load_says_what_is_wrong(hope, tmp_path):
    with pytest.raises(FileNotFoundError, match="no run or checkpoint at"):
        hope_jax.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        hope_jax.load(tmp_path)


def test_divergence_stops_with_the_last_good_checkpoint(config, tmp_path, capsys):
    wild = dataclasses.replace(
        config,
        steps=40,
        max_bad_steps=3,
        optim=dataclasses.replace(config.optim, lr=1e18, warmup=30, clip=None),
        checkpoint_every=1,
    )
    with pytest.raises(NonFinite, match=r"3 steps in a row .* went first.*Checkpoint \d+ is"):
        train(wild, tmp_path)
    assert "was not finite and is skipped; first: " in capsys.readouterr().out
    bad = [r["step"] for r in read_log(tmp_path / "metrics.jsonl") if "first_bad" in r]
    kept = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
    assert len(bad) == 3 and max(kept) == bad[0] - 1
    params = hope_jax.load(tmp_path).params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_a_bad_last_step_does_not_cost_the_steps_before_it(config, tmp_path, monkeypatch):
    """Nothing but the last step goes wrong: the run ends with a checkpoint all the same."""
    see = BadSteps.see
    monkeypatch.setattr(
        BadSteps, "see", lambda self, step, bad: see(self, step, 0 if step == 12 else bad)
    )
    assert train(config, tmp_path).step == hope_jax.load(tmp_path).step == 12


def test_a_vocabulary_that_is_too_small_is_refused(config, tmp_path):
    small = dataclasses.replace(config, model=ModelConfig(vocab_size=100))
    with pytest.raises(ValueError, match="256 token ids .* model.vocab_size is 100"):
        train(small, tmp_path)


def test_a_prompt_without_tokens_does_not_cost_the_summary(config, tmp_path, capsys):
    """Vocabularies of words drop blanks, such as the newline that a sample begins with."""
    tokenizers = pytest.importorskip("tokenizers")
    ids = {"[UNK]": 0, "to": 1, "be": 2, "or": 3, "not": 4}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    words.save(str(tmp_path / "words.json"))
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 60)
    source = TextSource([tmp_path / "text.txt"], validation=0.3)
    prepare(tmp_path / "data", source, make_tokenizer(str(tmp_path / "words.json")))
    data = dataclasses.replace(config.data, path=str(tmp_path / "data"))
    short = dataclasses.replace(config, data=data, steps=1, sample_tokens=4)
    summary = train(short, tmp_path / "run").summary
    assert summary["sample"] is None and summary["held_out"]["loss"] > 0
    assert "no token for sample_prompt '\\n'; set sample_prompt" in capsys.readouterr().out
