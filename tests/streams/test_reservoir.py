"""The reservoir: bounded, a fair sample, and the same after it was saved."""

import numpy as np
import pytest

from hope_jax.streams.reservoir import Reservoir


def test_it_is_bounded_and_fair():
    counts = np.zeros(100)
    for seed in range(200):
        reservoir = Reservoir(tokens=40, window=4, seed=seed)
        reservoir.add(np.repeat(np.arange(100), 4))
        kept = [int(window[0]) for window in reservoir.windows()]
        assert len(kept) == 10 and len(reservoir) == 40
        counts[kept] += 1
    assert abs(counts[:50].mean() - 20) < 3 and abs(counts[50:].mean() - 20) < 3


def test_saved_it_goes_on_as_it_would_have():
    one = Reservoir(tokens=8, window=4)
    one.add(np.arange(18))
    other = Reservoir.from_arrays(one.arrays())
    for reservoir in (one, other):
        reservoir.add(np.arange(18, 60))
    for a, b in zip(one.windows(), other.windows(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_contexts_end_windows():
    reservoir = Reservoir(tokens=16, window=4)
    reservoir.add(np.arange(6))
    reservoir.cut()
    reservoir.add(np.arange(10, 13))
    assert [w.tolist() for w in reservoir.windows()] == [[0, 1, 2, 3], [4, 5], [10, 11, 12]]
    reservoir.empty()
    assert len(reservoir) == 0 and reservoir.windows() == []


def test_short_texts_fill_it_as_long_ones_do():
    reservoir = Reservoir(tokens=1600, window=256)
    for number in range(200):
        reservoir.add(np.full(20, number))
        reservoir.cut()
    assert len(reservoir) == 1600
    assert len({int(window[0]) for window in reservoir.windows()}) == 80
    reservoir.add(np.arange(1000))
    assert 1600 - 256 < sum(map(len, reservoir.windows()[:-1])) <= 1600


def test_none_and_nonsense():
    nothing = Reservoir(tokens=0)
    nothing.add(np.arange(1000))
    assert len(nothing) == 0
    with pytest.raises(ValueError, match="reservoir of 10 tokens holds no window of 256"):
        Reservoir(tokens=10)
    with pytest.raises(ValueError, match="a window is of 1 tokens"):
        Reservoir(window=1)
