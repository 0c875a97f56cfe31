import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.ops.decay import decay_products


@pytest.mark.parametrize("size", [1, 2, 7, 64, 200])
def test_entries_are_products_of_the_gates_between(size):
    alpha = np.random.default_rng(size).uniform(size=size)
    alpha[::5] = 0.0
    alpha[1::7] = 1.0
    between, since_start = jax.jit(decay_products)(jnp.asarray(alpha, jnp.float32))
    want = np.zeros((size, size))
    for r in range(size):
        for i in range(r + 1):
            want[r, i] = np.prod(alpha[i + 1 : r + 1])
    np.testing.assert_allclose(between, want, rtol=2e-5, atol=1e-30)
    np.testing.assert_allclose(since_start, np.cumprod(alpha), rtol=2e-5, atol=1e-30)


def test_gradient_is_finite_where_retention_is_zero():
    alpha = jnp.array([0.5, 0.0, 0.0, 1.0, 0.3])
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(decay_products(a)[0] ** 2)))(alpha)
    assert jnp.isfinite(gradient).all()
