"""Rows of many streams: each is what it would be alone, and none sees another."""

import jax
import numpy as np
import pytest

from hope_jax.streams import Limits, ManyStreams, Stream

# The model is not trained: at the usual limits all that it reads would be noise to it.
LIMITS = Limits(surprise=None)

TEXTS = [
    "The harbour's new master is Anna.",
    "",
    "Snow fell on the pass all night, and all day.",
]


@pytest.fixture(scope="module", params=["learns", "does not learn"])
def opened(base, request):
    return Stream.open(base, levels=None if request.param == "learns" else {}, limits=LIMITS)


def weights(stream):
    leaves = jax.tree.leaves(stream.state.state)
    return [np.asarray(x) for x in (*leaves, stream.state.logits_BW)]


def test_rows_are_what_they_would_be_alone(opened):
    many = ManyStreams(opened, 3)
    losses = [many.read(TEXTS), many.read(TEXTS[::-1])]
    many.forget_context()
    losses.append(many.read(["Anna"] * 3))
    for row in range(3):
        alone = opened.copy()
        for number, texts in enumerate((TEXTS, TEXTS[::-1])):
            alone.read(texts[row])
            expected = alone.surprise().loss_T
            np.testing.assert_allclose(losses[number][row], expected, rtol=2e-3, atol=1e-3)
        alone.forget_context()
        alone.read("Anna")
        np.testing.assert_allclose(
            losses[2][row], alone.surprise().loss_T, rtol=2e-3, atol=1e-3
        )
        for a, b in zip(weights(many.row(row)), weights(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=5e-3, atol=2e-3)


def test_what_one_row_reads_changes_no_other(opened):
    one, other = ManyStreams(opened, 3), ManyStreams(opened, 3)
    one.read(TEXTS)
    other.read([TEXTS[0], "something else altogether", TEXTS[2]])
    for row in (0, 2):
        for a, b in zip(weights(one.row(row)), weights(other.row(row)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_mistakes_are_named(opened):
    with pytest.raises(ValueError, match="2 texts for 3 streams"):
        ManyStreams(opened, 3).read(["a", "b"])
    for ids, said in (([1.5], "the first of these is 1.5"), ([[1]], r"have shape \(1, 1\)")):
        with pytest.raises(ValueError, match=said):
            ManyStreams(opened, 2).read_ids([[65], ids])
    with pytest.raises(ValueError, match="no row 3 among 3"):
        ManyStreams(opened, 3).row(3)


def test_a_row_has_what_it_read(opened):
    many = ManyStreams(opened, 2)
    many.read(["abcdefgh", "xyz"])
    assert [many.row(i).tokens_read for i in range(2)] == [8, 3]
    assert [len(many.row(i).reservoir) for i in range(2)] == [8, 3]


@pytest.mark.slow
@pytest.mark.parametrize("levels", [None, {}], ids=["learns", "does not learn"])
def test_rows_of_a_mixer_that_keeps_one_place(in_step, levels):
    """Each at another place in its chunk, and in the chunk that the CMS learns from."""
    stream = Stream.open(in_step, levels=levels, limits=LIMITS)
    many = ManyStreams(stream, 2)
    texts = [("abcdefghijk", "zyxwv"), ("ab", "the quick brown fox " * 4)]
    losses = [many.read(both) for both in texts]
    many.forget_context()
    losses.append(many.read(["fox", "a b c"]))
    for row in range(2):
        alone = stream.copy()
        for number, both in enumerate(texts):
            alone.read(both[row])
            expected = alone.surprise().loss_T
            np.testing.assert_allclose(losses[number][row], expected, rtol=2e-3, atol=1e-3)
        alone.forget_context()
        alone.read(["fox", "a b c"][row])
        np.testing.assert_allclose(
            losses[2][row], alone.surprise().loss_T, rtol=2e-3, atol=1e-3
        )
        for a, b in zip(weights(many.row(row)), weights(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=5e-3, atol=2e-3)
