"""The streams of the experiment on memory: what is told, what is asked, what is unseen."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

from continual.facts import (
    ATTRIBUTES,
    QUESTIONS,
    STATEMENTS,
    Fact,
    Maker,
    facts,
    words,
)
from continual.recall import lived, questions, recalled

from hope_jax.data import ByteTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return ByteTokenizer()


def test_words_of_the_test_are_never_in_training():
    seen = set()
    for seed in range(20):
        seen.update(words("train", np.random.default_rng(seed), 100))
    unseen = set(words("test", np.random.default_rng(0), 200))
    assert len(seen) > 1000 and not seen & unseen


def test_sentences_of_the_test_are_never_in_training():
    for forms in (STATEMENTS, QUESTIONS):
        for train, test in zip(forms["train"], forms["test"], strict=True):
            assert not set(train) & set(test)


def test_facts_have_one_value_and_values_are_different():
    told = facts("train", np.random.default_rng(0), 64)
    assert len({(f.name, f.attribute) for f in told}) == len({f.value for f in told}) == 64
    assert {f.attribute for f in told} <= set(ATTRIBUTES)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_stream_tells_before_the_context_is_dropped_and_asks_after(tokenizer, split):
    maker = Maker(tokenizer, split, 3)
    for count in (4, 9):
        ids, drop, answer, question = maker.stream(1500, count, 4)
        assert ids.shape == (1501,) and drop.shape == answer.shape == question.shape == (1500,)
        (at,) = np.flatnonzero(drop)
        assert not answer[:at].any() and answer[at:].any()
        before = tokenizer.decode(ids[:at]).decode()
        assert question.max() == 4 and (answer == (question > 0)).all()
        for number in range(1, 5):
            value = tokenizer.decode(ids[1:][question == number]).decode().strip()
            assert re.search(rf"\b{value}\b", before)


def test_a_stream_without_room_says_so(tokenizer):
    with pytest.raises(ValueError, match="40 facts and a question do not fit 100 tokens"):
        Maker(tokenizer, "train", 0).stream(100, 40, 1)


def test_few_forms_are_the_first(tokenizer):
    maker = Maker(tokenizer, "train", 0)
    maker.most = 1
    fact = Fact("Kalo", "song", "mirun")
    texts = {tokenizer.decode(maker.sentence(STATEMENTS["train"], fact)[0]) for _ in range(5)}
    assert texts == {b"\nKalo's song is mirun."}


def test_questions_are_of_what_the_row_read(tokenizer):
    maker = Maker(tokenizer, "test", 1)
    texts, known = lived(maker, 3, 5, 10)
    assert len({len(text) for text in texts}) == 1
    ids, marks = questions(maker, known, 4, width=80)
    for row in range(3):
        values = {f.value for f in known[row]}
        for i, m in zip(ids[row], marks[row], strict=True):
            assert tokenizer.decode(i[m]).decode().strip() in values


def test_a_value_counts_if_all_its_tokens_are_right():
    ids_QT = np.asarray([[0, 1, 2, 3]] * 3)
    marks_QT = np.asarray([[False, False, True, True]] * 3)
    logits_QTW = np.zeros((3, 3, 4))
    for query, said in enumerate([(3, 2, 3), (1, 2, 1), (1, 0, 3)]):
        logits_QTW[query, np.arange(3), said] = 1
    assert recalled(logits_QTW, ids_QT, marks_QT).tolist() == [True, False, False]
