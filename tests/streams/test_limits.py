"""What a stream refuses to learn."""

import jax
import numpy as np
import pytest

from hope_jax.streams import NO_LIMITS, Limits, Stream
from hope_jax.streams.session import Session

TEXT = "The harbour's new master is Anna Brandt, and she came from the north. "


@pytest.mark.slow
def test_noise_is_not_learned_and_text_is(base):
    """A chunk far less expected than by a uniform guess leaves the weights as they are."""
    expected = Stream.open(base, limits=NO_LIMITS)
    expected.read(TEXT)
    assert expected.refused == 0
    worst = float(expected.surprise().mean / np.log(base.config.model.vocab_size))
    same = Stream.open(base, limits=Limits(None, None, surprise=2 * worst))
    same.read(TEXT)
    strict = Stream.open(base, limits=Limits(None, None, surprise=0.2 * worst))
    said = Session(strict).take(TEXT.strip())
    assert f"{strict.refused} updates refused" in said.text
    assert same.refused == 0 and strict.refused == len(TEXT.strip()) // 8
    for a, b in zip(
        jax.tree.leaves(expected.fast_weights), jax.tree.leaves(same.fast_weights), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)  # two programs
    assert not any(w.any() for w in jax.tree.leaves(strict.fast_weights))
