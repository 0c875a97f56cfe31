"""Scores are what a plain forward pass says, whatever is read together and in which pieces."""

import dataclasses

import numpy as np
import pytest
from evaluation_models import MODE, make_scorer, plain_log_probabilities

from hope_jax.evaluation import Row, Scorer, pair_row, text_row
from hope_jax.evaluation.batches import batches, cut, shared_tokens
from hope_jax.inference import read
from hope_jax.inference.learning import Mode

CONTEXT = "The quality of mercy is not strained; it droppeth as the gentle rain from heaven. "

slow = lambda name: pytest.param(name, marks=pytest.mark.slow)
NAMES = ["linear", *map(slow, ("learns", "attention", "self_modifying"))]


def close(one, other):
    assert dataclasses.replace(one, log_probability=0) == dataclasses.replace(
        other, log_probability=0
    )
    assert one.log_probability == pytest.approx(other.log_probability, abs=2e-4)


def test_a_score_is_the_sum_of_log_probabilities(scorer):
    row = pair_row(scorer.model, scorer.tokenizer, CONTEXT, "Upon the place")
    assert bytes(row.ids_T[row.start :].tolist()) == b" Upon the place"
    [[score]] = scorer.score([[row]])
    plain_TW = plain_log_probabilities(scorer, row.ids_T)
    own_T = plain_TW[np.arange(len(row.ids_T)), row.ids_T]
    assert score.log_probability == pytest.approx(own_T[row.start :].sum(), abs=2e-4)
    assert (score.tokens, score.length) == (15, len(CONTEXT) + 14)


def test_greedy_is_every_token_the_likeliest(scorer):
    ids = list(scorer.tokenizer.encode(CONTEXT[:40]))
    for _ in range(3):
        ids.append(int(plain_log_probabilities(scorer, np.asarray([*ids, 0]))[-1].argmax()))
    likeliest = Row(np.asarray(ids, np.int32), 40)
    other = Row(np.asarray([*ids[:-1], (ids[-1] + 1) % 256], np.int32), 40)
    first_is_not = Row(np.asarray(ids, np.int32), 39)
    scores = scorer.score([[likeliest], [other], [first_is_not]])
    assert [s.greedy for [s] in scores] == [True, False, False]


@pytest.mark.parametrize("name", NAMES)
def test_rows_together_are_rows_one_by_one(name):
    """Of different lengths, with shared beginnings and without, and with padding."""
    scorer = make_scorer(name)
    row = lambda context, text: pair_row(scorer.model, scorer.tokenizer, context, text)
    items = [
        [row(CONTEXT, "a"), row(CONTEXT, "a rather longer ending of it")],
        [row("", "no context")],
        [row(CONTEXT * 2 + "Who", " is"), row(CONTEXT * 2 + "What", " is")],
        [row("A", " b")],
        [row("Once upon", " a time")],
    ]
    together = scorer.score(items)
    for of_item, scores in zip(items, together, strict=True):
        for one, score in zip(of_item, scores, strict=True):
            close(scorer.score([[one]] * 4)[0][0], score)  # of one shape with the rest


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_many_pieces_is_what_inference_reads(name):
    """With the updates of memories and of the CMS that inference makes, and their number."""
    scorer = make_scorer(name)
    text = (CONTEXT * 4)[:256]
    reading = read(scorer.model, scorer.params, scorer.tokenizer, text, limits=MODE.limits)
    row = Row(scorer.tokenizer.encode(text), 0)
    [score], [end], *_ = scorer.score([[row], [Row(row.ids_T, 200)]] * 2)
    assert score.log_probability == pytest.approx(-reading.loss_T.sum(), abs=2e-3)
    assert end.log_probability == pytest.approx(-reading.loss_T[200:].sum(), abs=1e-3)
    updates = {
        "attention": (0, 0),
        "linear": (256 * 2, 0),
        "self_modifying": (256 * 2, 0),
        "learns": (0, 7 + 3),
    }
    assert (score.memory_updates, score.level_updates) == updates[name]
    if name == "learns":
        assert int(reading.state.state.refused_B[0]) == 0


@pytest.mark.parametrize("name", ["linear", *map(slow, ("learns", "self_modifying"))])
def test_a_stream_is_the_row(name):
    scorer = make_scorer(name)
    row = text_row(scorer.model, scorer.tokenizer, CONTEXT * 2)
    parts = np.split(row.ids_T[row.start :], [1, 70, 71, 150])
    [[score]] = scorer.score([[row]])
    close(scorer.score_stream(parts, row.ids_T[: row.start]), score)


@pytest.mark.slow
def test_without_updates_there_are_none_and_the_scores_differ():
    learns, frozen = make_scorer("learns"), make_scorer("learns", Mode(writes=False))
    items = [[text_row(learns.model, learns.tokenizer, CONTEXT * 2)]]
    [[score]], [[without]] = learns.score(items), frozen.score(items)
    assert (score.level_updates, without.level_updates) == (5 + 2, 0)
    assert abs(score.log_probability - without.log_probability) > 1e-2


def test_the_first_token_of_a_text():
    """After the end-of-text token where there is one; else a uniform guess."""
    ends, plain = make_scorer("attention"), make_scorer("linear")
    with_end = text_row(ends.model, ends.tokenizer, "T")
    without = text_row(plain.model, plain.tokenizer, "T")
    assert (with_end.ids_T.tolist(), with_end.start) == ([256, 84], 1)
    assert (without.ids_T.tolist(), without.start) == ([84], 0)
    [[score]] = plain.score([[without]])
    assert score.log_probability == pytest.approx(-np.log(256), abs=1e-5)
    [[score]] = ends.score([[with_end]])
    expected = plain_log_probabilities(ends, with_end.ids_T)[1, 84]
    assert score.log_probability == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_refused_updates_are_not_counted():
    """To a model that is not trained every text is noise, which is not learned from."""
    learns = make_scorer("learns", Mode())
    [[score]] = learns.score([[text_row(learns.model, learns.tokenizer, CONTEXT * 2)]])
    assert score.level_updates == 0


def test_few_shapes_are_compiled(scorer):
    from hope_jax.evaluation.scorer import _score_piece

    def rows(texts):
        return [[text_row(scorer.model, scorer.tokenizer, text)] for text in texts]

    scorer.score(rows(["x" * n for n in range(1, 60)]))
    before = _score_piece._cache_size()
    scorer.score(rows(["y" * n for n in range(2, 61)]))
    assert _score_piece._cache_size() == before


def test_nothing_to_score(scorer):
    with pytest.raises(ValueError, match="comes an empty text"):
        pair_row(scorer.model, scorer.tokenizer, "To be", "")
    with pytest.raises(ValueError, match="the text is empty"):
        scorer.score_stream([np.zeros(0, np.int32)], [256])


def test_scores_that_are_no_numbers(scorer):
    import jax

    params = jax.tree.map(lambda x: x * np.nan, scorer.params)
    broken = Scorer(scorer.model, params, scorer.tokenizer, batch=4, sizes=(64,))
    with pytest.raises(ValueError, match="not numbers"):
        broken.score([[text_row(scorer.model, scorer.tokenizer, "abc")]])


class Merges:
    """A tokenizer that joins "ab" to one token."""

    vocab_size, begin_id, end_id = 256, None, None

    def encode(self, text):
        return np.frombuffer(text.replace("ab", "\x01").encode(), np.uint8).astype(np.int32)


def test_a_token_across_the_cut(scorer):
    """It belongs to the context; where it leaves nothing to score, the two are cut first."""
    row = pair_row(scorer.model, Merges(), "ca", "b")
    assert (row.ids_T.tolist(), row.start) == ([99, 97, 98], 2)
    row = pair_row(scorer.model, Merges(), "ca", "bd")
    assert (row.ids_T.tolist(), row.start) == ([99, 1, 100], 2)


def test_what_is_read_together():
    make = lambda *lengths: [Row(np.arange(n, dtype=np.int32), n - 1) for n in lengths]
    items = [make(9, 9), make(30), make(5, 6), make(9, 8)]
    assert shared_tokens(items[0], 4) == 8 and shared_tokens(items[3], 4) == 4
    plan = batches(items, width=4, step=4, tokens=1000)
    assert [[unit.item for unit in units] for units in plan] == [[0, 3], [2, 1]]
    assert sorted((u.item, r) for units in plan for u in units for r in u.rows) == sorted(
        (i, r) for i, rows in enumerate(items) for r in range(len(rows))
    )
    assert all(sum(len(u.rows) for u in units) <= 4 for units in plan)
    long = batches(items, width=4, step=4, tokens=20)
    assert all(len(units) == 1 or sum(len(u.rows) for u in units) * 9 <= 20 for units in long)
    many = batches([make(*[5] * 7)], width=3, step=4, tokens=1000)
    assert sorted(len(units[0].rows) for units in many) == [1, 3, 3]
    assert cut(1, (512, 256, 128, 64)) == [64] and sum(cut(1337, (512, 256, 128, 64))) == 1344
