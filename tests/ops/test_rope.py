"""Rotary positions: lengths are kept, products depend on distance only."""

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.ops.rope import rope


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
