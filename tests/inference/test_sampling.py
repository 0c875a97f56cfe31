"""Sampling against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hope_jax.inference.sampling import filter_logits, sample, sampling


def brute_force(logits, top_k, top_p):
    """The set of tokens that may be drawn, by sorting Python lists."""
    ranked = sorted(range(len(logits)), key=lambda w: (-logits[w], w))[: top_k or len(logits)]
    if top_p is None:
        return set(ranked)
    weights = [np.exp(np.float64(logits[w] - max(logits))) for w in ranked]
    kept, total = set(), 0.0
    for w, weight in zip(ranked, weights, strict=True):
        if kept and total >= top_p * sum(weights):
            break
        kept.add(w)
        total += weight
    return kept


@settings(deadline=None, max_examples=40)
@given(
    # coarse values, so that ties happen, and none of them adds up to exactly top_p
    logits=st.lists(st.integers(-6, 6).map(lambda i: i * 0.73), min_size=7, max_size=7),
    top_k=st.sampled_from([None, 1, 3, 7, 50]),
    top_p=st.sampled_from([None, 1e-6, 0.31234, 0.91234]),
)
def test_filters_match_brute_force(logits, top_k, top_p):
    out_BW = np.asarray(filter_logits(jnp.array([logits, logits[::-1]]), top_k, top_p))
    for row, values in zip(out_BW, (logits, logits[::-1]), strict=True):
        kept = set(np.flatnonzero(np.isfinite(row)).tolist())
        assert kept == brute_force(np.float32(values).tolist(), top_k, top_p)
        np.testing.assert_array_equal(row[list(kept)], np.float32(values)[list(kept)])


def test_frequencies_follow_the_probabilities():
    probs = np.array([0.5, 0.3, 0.15, 0.05])
    draws = 20_000
    keys_B = jax.random.split(jax.random.key(1), draws)
    logits_BW = jnp.tile(jnp.log(probs), (draws, 1))

    def frequencies(how):
        return np.bincount(sample(logits_BW, keys_B, how), minlength=4) / draws

    np.testing.assert_allclose(frequencies(sampling()), probs, atol=0.015)
    hot = probs**0.5 / (probs**0.5).sum()
    np.testing.assert_allclose(frequencies(sampling(2.0)), hot, atol=0.015)
    top2 = np.array([0.625, 0.375, 0, 0])
    np.testing.assert_allclose(frequencies(sampling(top_k=2)), top2, atol=0.015)
    np.testing.assert_allclose(frequencies(sampling(top_p=0.7)), top2, atol=0.015)


def test_greedy_takes_the_likeliest_whatever_the_key():
    logits_BW = jnp.array([[0.0, 1.0, 3.0], [5.0, 1.0, 3.0]])
    for seed in range(5):
        keys_B = jax.random.split(jax.random.key(seed), 2)
        assert sample(logits_BW, keys_B, sampling(0.0, top_k=2)).tolist() == [2, 0]


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-38, 1e-7])
def test_temperatures_too_small_to_divide_by_take_the_likeliest(temperature):
    logits_BW = jnp.array([[3.0, -1.0, 7.0, 6.9]] * 50)
    keys_B = jax.random.split(jax.random.key(0), 50)
    assert set(sample(logits_BW, keys_B, sampling(temperature)).tolist()) == {2}
    coldest = jax.jit(sample)(logits_BW, keys_B, sampling(1e-6, top_p=0.9))
    assert set(coldest.tolist()) == {2}


def test_the_greatest_numbers_switch_their_rule_off():
    logits_BW = jnp.array([[300.0, 0.0]] * 100)
    keys_B = jax.random.split(jax.random.key(0), 100)
    drawn = jax.jit(sample)(logits_BW, keys_B, sampling(1e39, top_k=99_999_999_999))
    assert 30 < int(drawn.sum()) < 70


def test_numbers_are_traced():
    traces = []

    @jax.jit
    def draw(logits_BW, keys_B, how):
        traces.append(1)
        return sample(logits_BW, keys_B, how)

    keys_B = jax.random.split(jax.random.key(0), 1)
    for how in (sampling(0.5, top_k=2), sampling(0.9, top_k=3), sampling(1.5, top_k=1)):
        draw(jnp.zeros((1, 4)), keys_B, how)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        sampling(**settings)
