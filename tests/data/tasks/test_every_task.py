"""What is asked of every task, whatever its rule."""

import collections
import dataclasses

import numpy as np
import pytest
from task_cases import CASES

from hope_jax.config import TASK_CONFIGS, DataConfig
from hope_jax.config.tasks import answers_of
from hope_jax.data import open_dataset
from hope_jax.data.tokenizers import SymbolTokenizer, load_tokenizer

ROWS = 64


@pytest.fixture(params=CASES)
def case(request, stories):
    task, length, too_short = CASES[request.param]
    if task.type == "babilong":
        task = dataclasses.replace(task, stories=str(stories))
    return DataConfig(task=task, length=length, batch=ROWS), too_short


def first(config, split="train"):
    return next(iter(open_dataset(config, split=split)))


def test_every_task_is_asked():
    assert set(TASK_CONFIGS) == {task.type for task, _, _ in CASES.values()}


def test_batches_are_well_formed(case):
    config, _ = case
    for split in ("train", "validation"):
        data = open_dataset(config, split=split)
        batch = next(iter(data))
        assert batch["tokens"].shape == (ROWS, config.length + 1)
        assert batch["tokens"].dtype == np.int32
        assert 0 <= batch["tokens"].min() and batch["tokens"].max() < data.vocab_size
        assert batch["reset"][:, 0].all() and not batch["reset"][:, 1:].any()
        np.testing.assert_allclose(batch["weight"].mean(axis=1), 1.0, rtol=1e-5)
        key = answers_of(config.task)
        assert set(batch) - {"depth"} == {"tokens", "reset", "weight", key}
        if "depth" in batch:  # the training step does not know it
            assert split == "validation"
            assert batch["depth"].shape == (ROWS,) and batch["depth"].dtype == np.float32
            assert 0 <= batch["depth"].min() and batch["depth"].max() <= 1
        if key == "targets":
            answers = batch[key][batch["weight"] > 0]
            assert 0 <= answers.min() and answers.max() < data.vocab_size
        if key == "legal":
            answers = batch[key][batch["weight"] > 0]
            assert 0 < answers.min() and answers.max() < 1 << data.vocab_size


def test_an_answer_in_the_text_is_the_next_token(case):
    config, _ = case
    if config.task.answers != "next":
        pytest.skip("the answers are beside the text")
    data = open_dataset(config)
    for number in range(20):
        example = data.source.example(number)
        following = np.append(example.inputs_T[1:], example.last)
        np.testing.assert_array_equal(
            example.targets_T[example.asked_T], following[example.asked_T]
        )


def test_an_example_depends_on_its_number_and_the_seed_alone(case):
    config, _ = case
    batch = first(config)
    again = first(dataclasses.replace(config, batch=ROWS // 2))
    for key, rows in again.items():
        np.testing.assert_array_equal(batch[key][: ROWS // 2], rows)
    part = next(iter(open_dataset(config, rows=range(3, 7))))
    np.testing.assert_array_equal(batch["tokens"][3:7], part["tokens"])
    other = dataclasses.replace(config, seed=1)
    assert (first(other)["tokens"] != batch["tokens"]).any()
    held_out = first(config, "validation")["tokens"]
    np.testing.assert_array_equal(first(other, "validation")["tokens"], held_out)
    assert (held_out != batch["tokens"]).any()


def test_reading_goes_on_where_it_stopped(case):
    config, _ = case
    config = dataclasses.replace(config, batch=4)
    batches = iter(open_dataset(config))
    next(batches)
    position = batches.get_state()
    expected = next(batches)
    other = iter(open_dataset(config))
    other.set_state(position)
    np.testing.assert_array_equal(next(other)["tokens"], expected["tokens"])
    longer = iter(open_dataset(dataclasses.replace(config, length=config.length + 8)))
    with pytest.raises(ValueError, match="was saved with length"):
        longer.set_state(position)


def test_few_examples_come_again_in_another_order(case):
    config, _ = case
    task = dataclasses.replace(config.task, examples=8)
    batch = first(dataclasses.replace(config, task=task, batch=24))["tokens"]
    epochs = [{row.tobytes() for row in batch[i : i + 8]} for i in (0, 8, 16)]
    assert epochs[0] == epochs[1] == epochs[2]


def test_a_text_that_is_too_short_is_refused(case):
    config, too_short = case
    if too_short is None:
        pytest.skip("any length will do")
    with pytest.raises(ValueError, match="data.length"):
        open_dataset(dataclasses.replace(config, length=too_short))


def test_chance_is_what_a_guess_has(case):
    config, _ = case
    data = open_dataset(dataclasses.replace(config, batch=512), split="validation")
    if data.source.task.chance is None:
        pytest.skip("taken from the examples")
    batch = next(iter(data))
    key = answers_of(config.task)
    answers = batch["tokens"][:, 1:] if key == "tokens" else batch[key]
    if config.task.judged == "example":
        pairs = zip(answers, batch["weight"] > 0, strict=True)
        counts = collections.Counter(row[asked].tobytes() for row, asked in pairs)
        total, most = len(answers), max(counts.values())
    else:
        answers = answers[batch["weight"] > 0]
        total, most = answers.size, np.bincount(answers).max()
    commonest = most / total
    error = np.sqrt(commonest * (1 - commonest) / total)
    assert commonest == pytest.approx(data.source.task.chance, abs=5 * error)


def test_symbols_are_a_tokenizer(case, tmp_path):
    config, _ = case
    tokenizer = open_dataset(config).tokenizer
    if not isinstance(tokenizer, SymbolTokenizer):
        pytest.skip("a task over text")
    assert len(set(tokenizer.symbols)) == tokenizer.vocab_size
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    ids = first(config)["tokens"][0]
    np.testing.assert_array_equal(loaded.encode(loaded.decode(ids)), ids)
