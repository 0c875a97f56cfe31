"""Judging answers, and training on a task through the ordinary loop."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hope_jax
from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    GatedDeltaNetConfig,
    InContextConfig,
    ModelConfig,
    TrainConfig,
    override,
)
from hope_jax.config.tasks import MQARConfig
from hope_jax.data import open_dataset
from hope_jax.models import LanguageModel, init_params, legal_set_losses, legal_set_right
from hope_jax.training import train
from hope_jax.training.answers import AnswerEvaluator, _commonest
from hope_jax.training.objective import judge, token_losses

TASK = MQARConfig(pairs=2, keys=4, values=4)
CONFIG = TrainConfig(
    model=ModelConfig(
        vocab_size=9,
        dim=16,
        depth=1,
        mixer=GatedDeltaNetConfig(heads=1, chunk=8),
        cms=CMSConfig(hidden=16),
    ),
    data=DataConfig(task=TASK, batch=8, length=12),
    steps=4,
    eval_every=2,
    eval_batches=2,
    checkpoint_every=2,
    tests=("data.length=20 data.task.pairs=3",),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its test has another batch than the run, on two devices."""
    workdir = tmp_path_factory.mktemp("task")
    longer = "data.length=20 data.task.pairs=3 data.batch=4"
    config = override(CONFIG, {"mesh.fsdp": 2, "tests": (longer,)})
    return train(config, workdir), workdir


def test_a_run_on_a_task_is_judged(run):
    outcome, workdir = run
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary == json.loads(json.dumps(outcome.summary))
    found = summary["held_out"]
    assert found["examples"] >= 1000 and found["asked"] == 2 * found["examples"]
    assert found["chance"] == 0.25 and found["length"] == 12
    assert found["write_events"] > 0
    assert summary["held_out_without_writes"]["write_events"] == 0
    (longer,) = summary["tests"].values()
    assert longer["length"] == 20 and longer["asked"] == 3 * longer["examples"] >= 3000
    log = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert sum("eval/accuracy" in record for record in log) == 2
    for name in ("loss.png", "accuracy.png"):
        assert (workdir / name).stat().st_size > 5_000


def test_the_figures_are_those_of_a_plain_count(run):
    _, workdir = run
    loaded = hope_jax.load(workdir)
    held_out = open_dataset(loaded.config.data, loaded.tokenizer, split="validation")
    found = AnswerEvaluator(loaded.model)(loaded.params, held_out, 3)
    right, losses, whole = [], [], []
    for batch, _ in zip(held_out, range(3), strict=False):
        out = loaded.model.apply({"params": loaded.params}, batch["tokens"][:, :-1])
        scores = np.asarray(jax.nn.log_softmax(out.logits_BTW))
        for row in range(8):
            places = np.flatnonzero(batch["weight"][row])
            answers = batch["targets"][row, places]
            hits = scores[row, places].argmax(axis=-1) == answers
            right.append(hits.mean())
            whole.append(hits.all())
            losses.append(-scores[row, places, answers].mean())
    assert found.accuracy == found.tokens_right == pytest.approx(np.mean(right))
    assert found.examples_right == pytest.approx(np.mean(whole))
    assert found.error == pytest.approx(np.std(right, ddof=1) / np.sqrt(24))
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert (found.examples, found.asked) == (24, 48)


def test_only_answers_are_learned(run):
    """The gradient of a step does not depend on what is not asked for."""
    params = hope_jax.load(run[1]).params
    batch = next(iter(open_dataset(CONFIG.data)))
    model = LanguageModel(CONFIG.model)

    def mean_loss(params, targets):
        loss_BT, _ = token_losses(model, params, batch | {"targets": targets})
        return (loss_BT * batch["weight"]).mean()

    grads = jax.jit(jax.grad(mean_loss))
    other = np.where(batch["weight"] > 0, batch["targets"], 3)
    for a, b in zip(
        jax.tree.leaves(grads(params, batch["targets"])),
        jax.tree.leaves(grads(params, other)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_legal_sets_against_a_plain_count():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 7)).astype(np.float32) * 3
    legal = rng.integers(1, 2**6, size=(2, 5)).astype(np.int32)
    logits[0, 0, :6] = [5 if legal[0, 0] >> i & 1 else -5 for i in range(6)]
    losses = legal_set_losses(jnp.asarray(logits), jnp.asarray(legal), 6)
    right = legal_set_right(jnp.asarray(logits), jnp.asarray(legal), 6)
    for b, t in np.ndindex(2, 5):
        terms, hits = [], []
        for i in range(6):
            p = 1 / (1 + np.exp(-np.float64(logits[b, t, i])))
            wanted = bool(legal[b, t] >> i & 1)
            terms.append(-np.log(p if wanted else 1 - p))
            hits.append((p > 0.5) == wanted)
        assert losses[b, t] == pytest.approx(np.mean(terms), rel=1e-5)
        assert right[b, t] == all(hits)
    assert right[0, 0]


def test_chance_counts_answers_that_begin_alike():
    """Three of four examples ask for a beginning of 5 6 5."""
    targets_NT = np.array([[5, 0, 0], [5, 6, 0], [5, 6, 5], [6, 6, 6]])
    asked_NT = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]], bool)
    assert _commonest(targets_NT, asked_NT, by_example=True) == 0.75
    tokens = (0 + 1 / 2 + 1 / 3 + 1) / 4  # 6 is right most often
    assert _commonest(targets_NT, asked_NT, by_example=False) == pytest.approx(tokens)


@pytest.mark.slow
def test_a_cms_that_learns_within_a_text_is_judged_on_the_way():
    """Answers in the text: those of frozen weights if the inner rate is 0."""
    how = InContextConfig(chunks=(4,), lr=0.0)
    config = ModelConfig(
        vocab_size=9,
        dim=16,
        depth=1,
        mixer=AttentionConfig(heads=2),
        cms=CMSConfig(hidden=16, in_context=how),
    )
    params = init_params(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 15), 0, 9)
    batch = {"tokens": tokens, "reset": jnp.zeros((2, 14), bool).at[:, 0].set(True)}
    judged = jax.jit(functools.partial(judge, LanguageModel(config)), static_argnames="writes")
    found, frozen = judged(params, batch), judged(params, batch, writes=False)
    np.testing.assert_array_equal(found.right_BT, frozen.right_BT)
    np.testing.assert_allclose(found.loss_BT, frozen.loss_BT, rtol=1e-5)
    with pytest.raises(ValueError, match="answers of this task are not in its text"):
        judge(LanguageModel(config), params, batch | {"targets": tokens[:, 1:]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.vocab_size": 8}, "9 token ids"),
        (
            {"data.task": "formal", "data.length": 50, "tests": ()},
            "asks which of its 3 symbols",
        ),
        ({"tests": ("data.length=7",)}, "2 pairs and as many questions"),
        ({"tests": ("steps=2",)}, "changes steps, but"),
        ({"tests": ("data.task.pair=2",)}, "did you mean 'pairs'"),
        ({"tests": ("data.batch=12",)}, "tests: 'data.batch=12': data.batch 12 is 12 rows"),
        ({"tests": ("data.task.keys=5",)}, "not those of the given tokenizer"),
    ],
)
def test_what_does_not_fit_is_told_before_the_first_step(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(override(CONFIG, changes), tmp_path)


@pytest.mark.slow
def test_a_run_ends_when_enough_is_right(run, tmp_path):
    """And stays ended; the checkpoint is that of a run that goes on to there."""
    config = override(CONFIG, {"enough": 1e-9, "steps": 40, "tests": ()})
    first = train(config, tmp_path)
    again = train(config, tmp_path)
    assert first.step == again.step == 2 and first.stopped is None
    assert first.summary["steps"] == again.summary["steps"] == 2
    assert first.summary["held_out"] == again.summary["held_out"]
    assert hope_jax.load(tmp_path).step == 2
    with pytest.raises(ValueError, match="enough is 1.5"):
        override(CONFIG, {"enough": 1.5})


def test_tests_are_of_a_task():
    with pytest.raises(ValueError, match="data.task is None"):
        TrainConfig(tests=("data.length=20",))
