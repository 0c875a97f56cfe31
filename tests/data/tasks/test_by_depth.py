"""A task over text through the ordinary loop, and its accuracy by depth."""

import json

import jax
import numpy as np
import pytest

from hope_jax.config import (
    AttentionConfig,
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
from hope_jax.models import LanguageModel, init_params
from hope_jax.training import train
from hope_jax.training.answers import AnswerEvaluator


@pytest.fixture(scope="module")
def held_out(stories):
    task = BabilongConfig(stories=str(stories), facts=2)
    return open_dataset(DataConfig(task=task, batch=16, length=112), split="validation")


def says_barn():
    """A model whose CMS gives the next letter of one answer after every letter of it."""
    letters = "? barn."
    config = ModelConfig(
        vocab_size=256,
        dim=256,
        depth=1,
        mixer=AttentionConfig(heads=2),
        cms=CMSConfig(hidden=8),
    )
    params = jax.tree.map(np.zeros_like, init_params(config, jax.random.key(0)))
    params["embed"]["table"] = np.eye(256, dtype=np.float32)
    params["final_norm"]["scale"] += 1
    cms = params["blocks"]["cms"]["period_1"]
    cms["norm_scale"] += 1
    for unit, (letter, following) in enumerate(zip(letters, letters[1:], strict=False)):
        for weights in (cms["w_in"], cms["w_gate"]):
            weights[0, ord(letter), unit] = 1
        cms["w_out"][0, unit, ord(following)] = 1
    return LanguageModel(config), params


def test_depths_are_counted_as_a_plain_count_does(held_out):
    model, params = says_barn()
    found = AnswerEvaluator(model)(params, held_out, 8)
    hits, answers = [[] for _ in range(5)], []
    for number in range(128):
        example = held_out.source.example(number)
        text = held_out.tokenizer.decode(example.inputs_T).decode()
        answers.append(text.rsplit("? ", 1)[1])
        hits[min(int(example.depth * 5), 4)].append(answers[-1] == "barn.")
    assert [part.examples for part in found.by_depth] == list(map(len, hits))
    assert min(map(len, hits)) > 5 and 0 < sum(map(sum, hits)) < 128
    for part, some in zip(found.by_depth, hits, strict=True):
        assert part.accuracy == pytest.approx(np.mean(some))
        assert part.error == pytest.approx(np.std(some, ddof=1) / np.sqrt(len(some)))
    assert found.accuracy == pytest.approx(answers.count("barn.") / 128)
    assert found.chance == max(map(answers.count, answers)) / 128
    assert (found.examples, found.length, found.write_events) == (128, 112, 0)
    assert [(part.start, part.stop) for part in found.by_depth][1] == (0.2, 0.4)
    lines = found.depth_lines()
    assert len(lines) == 5 and f"of {len(hits[0])} examples" in lines[0]
    assert "\n" not in found.line()
    for line in (found.line(), *lines):
        assert "chance" in line and "standard error" in line


def test_an_example_is_shown_as_text(held_out):
    data, example = held_out, held_out.source.example(0)
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


@pytest.mark.slow
@pytest.mark.long
def test_the_ordinary_loop_learns_the_answers_and_reports_depth(tmp_path, stories):
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
    )
    train(config, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    found = summary["held_out"]
    assert 0.2 < found["chance"] < 0.5  # four places; the commonest one
    assert found["accuracy"] > 0.15  # from 0: it answers with a place
    assert found["write_events"] > 0 and found["length"] == 112
    assert sum(part["examples"] for part in found["by_depth"]) == found["examples"] >= 1000
    off = summary["held_out_without_writes"]
    assert off["write_events"] == 0 and len(off["by_depth"]) == 5
