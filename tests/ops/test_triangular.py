import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.ops.triangular import unit_lower_inverse, unit_lower_solve


def keys(kind, size, dim=16):
    key_CK = jax.random.normal(jax.random.key(0), (size, dim))
    if kind == "identical":
        key_CK = jnp.broadcast_to(key_CK[:1], key_CK.shape)
    if kind == "alternating":
        key_CK = key_CK[:2][jnp.arange(size) % 2]
    return key_CK / jnp.linalg.norm(key_CK, axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", ["random", "identical", "alternating"])
@pytest.mark.parametrize("rate", [0.1, 1.0, 1.99])
def test_inverse_is_exact_up_to_the_stability_limit(kind, rate):
    size = 256
    key_CK = keys(kind, size)
    n_CC = jnp.tril(rate * key_CK @ key_CK.T, -1)
    want = np.linalg.inv(np.eye(size) + np.asarray(n_CC, np.float64))
    got = np.asarray(jax.jit(unit_lower_inverse)(n_CC))
    # Rates above 1 overshoot and alternate; towards 2 the inverse hardly decays and
    # rounding piles up over hundreds of tokens.
    tolerance = 1e-5 if rate <= 1 else 1e-4
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13, 64])
def test_any_size(size):
    n_CC = jnp.tril(jax.random.normal(jax.random.key(size), (2, size, size)), -1) * 0.3
    product = unit_lower_inverse(n_CC) @ (jnp.eye(size)[None] + n_CC)
    np.testing.assert_allclose(product, jnp.eye(size)[None].repeat(2, 0), atol=1e-4)


def test_reads_only_below_the_diagonal():
    n_CC = jax.random.normal(jax.random.key(0), (16, 16))
    np.testing.assert_array_equal(
        unit_lower_inverse(n_CC), unit_lower_inverse(jnp.tril(n_CC, -1))
    )


def test_solve_has_the_gradient_of_the_solution():
    n_CC = jnp.tril(jax.random.normal(jax.random.key(0), (2, 12, 12)), -1) * 0.3
    rhs_CZ = jax.random.normal(jax.random.key(1), (2, 12, 5))

    def plain(n, r):
        return jnp.sum(jnp.sin(jnp.linalg.solve(jnp.eye(12)[None] + jnp.tril(n, -1), r)))

    def ours(n, r):
        return jnp.sum(jnp.sin(unit_lower_solve(n, r)))

    want = jax.grad(plain, (0, 1))(n_CC, rhs_CZ)
    got = jax.grad(ours, (0, 1))(n_CC, rhs_CZ)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)
