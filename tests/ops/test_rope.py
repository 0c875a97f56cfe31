"""Rotary positions: lengths are kept, products depend on distance only."""

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.config import RopeScalingConfig
from hope_jax.ops.rope import rates, rope


def test_products_depend_on_the_distance():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 3, 8))

    def product(q_position, k_position):
        turned_q = rope(q, jnp.full((1, 1), q_position))
        turned_k = rope(k, jnp.full((1, 1), k_position))
        return jnp.einsum("bthk,bthk->h", turned_q, turned_k)

    np.testing.assert_allclose(product(9, 4), product(1005, 1000), rtol=1e-3, atol=1e-4)
    assert np.abs(product(9, 4) - product(9, 5)).max() > 1e-2


def test_position_zero_and_lengths_are_kept():
    x = jax.random.normal(jax.random.key(0), (1, 5, 2, 8))
    y = rope(x, jnp.arange(5)[None])
    np.testing.assert_allclose(y[:, 0], x[:, 0], rtol=1e-6)
    np.testing.assert_allclose(
        jnp.linalg.norm(y, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
    )


def test_long_contexts_turn_slow_pairs_slower():
    """The three cases of Llama 3.1, pair by pair, in plain Python."""
    scaling = RopeScalingConfig(factor=8.0, low=1.0, high=4.0, context=8192)
    found = np.asarray(rates(64, 500_000.0, scaling))
    kinds = set()
    for pair, rate in enumerate(found):
        plain = 500_000.0 ** (-pair / 64)
        length = 2 * np.pi / plain
        if length < 8192 / 4.0:
            wanted, kind = plain, "fast"
        elif length > 8192 / 1.0:
            wanted, kind = plain / 8.0, "slow"
        else:
            kept = (8192 / length - 1.0) / (4.0 - 1.0)
            wanted, kind = (1 - kept) * plain / 8.0 + kept * plain, "between"
        kinds.add(kind)
        np.testing.assert_allclose(rate, wanted, rtol=1e-5)
    assert len(kinds) == 3
