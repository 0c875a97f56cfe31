"""The n-gram baselines."""

import numpy as np
import pytest

from hope_jax.data import corpus
from hope_jax.data.ngram import NGram, ngram_loss


def test_hand_computed_bigram():
    model = NGram.fit(np.array([0, 1, 0, 0]), order=2, vocab_size=2)
    # too few counts to estimate discounts, so each is 1/2. Token 0 follows {start, 1, 0} and
    # token 1 follows {0}: P(0) = 2.5/4 + 1/4 * 1/2. After 0, both were seen once, after 1
    # only 0.
    np.testing.assert_allclose(model.next_token(np.array([], int)), [0.75, 0.25])
    np.testing.assert_allclose(model.next_token(np.array([0])), [0.625, 0.375])
    np.testing.assert_allclose(model.next_token(np.array([1])), [0.875, 0.125])
    np.testing.assert_allclose(
        np.exp(model.log_probs(np.array([0, 1, 1, 0]))), [0.75, 0.375, 0.125, 0.875]
    )


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_sums_to_one(order):
    ids = np.frombuffer(corpus.documents("train")[0].data[:20_000], np.uint8)
    model = NGram.fit(ids, order)
    for context in (b"", b"t", b"the ", b"zqxj", b"\xff\xff", b"\n\nACT ", ids[-4:].tobytes()):
        distribution = model.next_token(np.frombuffer(context, np.uint8))
        assert distribution.min() > 0
        np.testing.assert_allclose(distribution.sum(), 1, rtol=1e-12)


def test_longer_contexts_predict_real_text_better():
    train, valid = (
        np.frombuffer(b"".join(play.data for play in corpus.documents(split)[:2]), np.uint8)
        for split in ("train", "validation")
    )
    losses = [ngram_loss(train, valid, order) for order in (1, 2, 3, 5)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < 3.5 and losses[2] < 2.4 and losses[3] < 2.1


def test_other_vocabularies_and_short_texts():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 60_000, 5_000)
    assert ngram_loss(ids, ids, 5, 60_000) < ngram_loss(ids, rng.permutation(ids), 5, 60_000)
    assert np.isfinite(ngram_loss(np.array([3]), np.array([3, 4, 5]), 5, 8))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="outside a vocabulary of 256"):
        ngram_loss(np.array([1, 300]), np.array([1]), 2)
    with pytest.raises(ValueError, match="at least one token"):
        ngram_loss(np.array([], int), np.array([1]), 2)
    with pytest.raises(ValueError, match="order is 0"):
        ngram_loss(np.array([1]), np.array([1]), 0)
