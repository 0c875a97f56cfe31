"""A task over text through the ordinary loop, and its accuracy by depth."""

import json

import jax
import numpy as np
import pytest

import hope_jax
from hope_jax.config import (
    CMSConfig,
    DataConfig,
    GatedDeltaNetConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from hope_jax.config.tasks import BabilongConfig, NeedleConfig
from hope_jax.data import open_dataset
from hope_jax.data.tasks.show import shown
from hope_jax.training import train
from hope_jax.training.answers import AnswerEvaluator


@pytest.fixture(scope="module")
def run(tmp_path_factory, stories):
    workdir = tmp_path_factory.mktemp("by_depth")
    config = TrainConfig(
        model=ModelConfig(
            vocab_size=260,  # some ids that the tokenizer does not have
            dim=32,
            depth=1,
            mixer=GatedDeltaNetConfig(heads=1, chunk=16),
            cms=CMSConfig(hidden=32),
        ),
        data=DataConfig(
            task=BabilongConfig(stories=str(stories), facts=2), batch=16, length=112
        ),
        optim=OptimConfig(lr=2e-2),
        steps=80,
        eval_every=80,
        eval_batches=2,
        checkpoint_every=80,
    )
    train(config, workdir)
    return workdir


def test_the_summary_has_accuracy_by_depth_and_chance(run):
    found = json.loads((run / "summary.json").read_text())["held_out"]
    parts = found["by_depth"]
    assert [part["start"] for part in parts] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert sum(part["examples"] for part in parts) == found["examples"] >= 1000
    assert min(part["examples"] for part in parts) > 50
    assert 0.2 < found["chance"] < 0.5  # four places; the commonest one
    assert found["write_events"] > 0 and found["length"] == 112


def test_depths_are_counted_as_a_plain_count_does(run):
    loaded = hope_jax.load(run)
    held_out = open_dataset(loaded.config.data, loaded.tokenizer, split="validation")
    found = AnswerEvaluator(loaded.model)(loaded.params, held_out, 8)
    hits, answers = [[] for _ in range(5)], []
    read = jax.jit(loaded.model.apply)
    for batch, _ in zip(held_out, range(8), strict=False):
        out = read({"params": loaded.params}, batch["tokens"][:, :-1])
        likeliest = np.asarray(out.logits_BTW.argmax(axis=-1))
        for row, depth in enumerate(batch["depth"]):
            asked = np.flatnonzero(batch["weight"][row])
            answer = batch["tokens"][row, 1:][asked]
            hits[min(int(depth * 5), 4)].append((likeliest[row, asked] == answer).all())
            answers.append(held_out.tokenizer.decode(answer))
    for part, some in zip(found.by_depth, hits, strict=True):
        assert part.examples == len(some) > 1
        assert part.accuracy == pytest.approx(np.mean(some))
        assert part.error == pytest.approx(np.std(some, ddof=1) / np.sqrt(len(some)))
    assert found.accuracy == pytest.approx(np.mean(np.concatenate(hits)))
    assert 0.05 < found.accuracy < 0.95  # else the comparison says little
    assert found.chance == max(map(answers.count, answers)) / len(answers)
    lines = found.depth_lines()
    assert len(lines) == 5 and f"of {len(hits[0])} examples" in lines[0]
    assert "\n" not in found.line() and "chance" in found.line() and "chance" in lines[0]


def test_an_example_is_shown_as_text(run):
    loaded = hope_jax.load(run)
    data = open_dataset(loaded.config.data, split="validation")
    example = data.source.example(0)
    scores = np.zeros((112, 260), np.float32)
    scores[np.arange(112), example.targets_T] = 1
    scores[:, 259] = 2  # no id of the tokenizer
    text, asked, answer = shown(example, data.tokenizer, scores, "tokens").split("\n")
    whole = data.tokenizer.decode(example.inputs_T).decode().replace("\n", "\\n")
    assert text == f"  text:   {whole}" and "went to the" in text
    assert asked.removeprefix("  asked:  ") == answer.removeprefix("  answer: ")
    assert whole.endswith(asked.removeprefix("  asked:  "))


def test_of_a_long_text_the_needle_and_the_question_are_shown():
    data = open_dataset(DataConfig(task=NeedleConfig(), length=5_000))
    for number in range(20):
        text = shown(data.source.example(number), data.tokenizer, None, "tokens")
        assert "\\nThe number of " in text and "What is the number of " in text
        assert len(text) < 700
