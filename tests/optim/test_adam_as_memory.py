"""Adam, AdaGrad and momentum as the best element-wise memory of past gradients (Eqs. 101-111).

A memory m is asked to map every gradient so far to a target P. Which optimizer its optimum
is, is a matter of P. Here g are gradients and a step goes along -m; the paper has g with the
opposite sign.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

T, D = 7, 5


def gradients():
    return jax.random.normal(jax.random.key(3), (T, D))


def objective(m, g_TD, target, damping, first=None, second=None):
    """Eq. 101 up to a constant, with weights of the two moments that it is made of.

    `sum_i second_i (m g_i)^2 - 2 first_i m g_i P + damping m^2`; weights of one (None) give
    `sum_i |m g_i - P|^2 + damping |m|^2` less what does not depend on m.
    """
    first, second = (jnp.ones(len(g_TD)) if v is None else v for v in (first, second))
    moment_1, moment_2 = first @ g_TD, second @ g_TD**2
    return jnp.sum(moment_2 * m**2 - 2 * m * moment_1 * target + damping * m**2)


def optimum(g_TD, target, damping, first=1.0, second=1.0):
    """Eq. 102."""
    moment, square = first * jnp.sum(g_TD, 0), second * jnp.sum(g_TD**2, 0)
    return moment * target / (square + damping)


def last(tx, g_TD):
    """What an optax transformation makes of the last of a row of gradients."""
    state = tx.init(g_TD[0])
    for g in g_TD:
        update, state = tx.update(g, state)
    return update


@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize("betas", [(1.0, 1.0), (0.9, 0.7)])
def test_closed_optimum(damping, betas):
    """Eq. 102 is stationary, and is where going downhill ends; for any target."""
    g = gradients()
    target = jax.random.normal(jax.random.key(4), (D,))
    if betas == (1.0, 1.0):
        printed = lambda m: jnp.sum((m * g - target) ** 2) + damping * jnp.sum(m**2)
        with jax.numpy_rank_promotion("allow"):
            slope = jax.grad(printed)
            check(slope, optimum(g, target, damping))
    else:
        first, second = (jnp.full(T, b) for b in betas)
        slope = jax.grad(lambda m: objective(m, g, target, damping, first, second))
        check(slope, optimum(g, target, damping, *betas))


def check(slope, best):
    size = jnp.abs(slope(best + 1)).min()  # of a quadratic, so its curvature
    assert size > 0.1
    assert jnp.abs(slope(best)).max() < 1e-5 * size
    downhill = lambda m, _: (m - 0.02 * slope(m), None)
    found, _ = jax.lax.scan(downhill, jnp.zeros(D), None, length=500)
    np.testing.assert_allclose(found, best, atol=1e-5)


def test_root_of_squares_is_adagrad_with_momentum():
    """Eq. 105 with sums, as printed: the summed gradient over the root of AdaGrad."""
    g = gradients()
    got = optimum(g, jnp.sqrt(jnp.sum(g**2, 0)), 0.0)
    summed = last(optax.trace(decay=1.0), g)
    inverse_root = last(optax.scale_by_rss(initial_accumulator_value=0.0, eps=0.0), g) / g[-1]
    np.testing.assert_allclose(got, summed * inverse_root, rtol=1e-5)
    # the printed factors: H carries beta2, M carries beta1, P neither
    b1, b2 = 0.9, 0.7
    got = optimum(g, jnp.sqrt(jnp.sum(g**2, 0)), 0.0, b1, b2)
    root = jnp.sqrt(b2 * jnp.sum(g**2, 0))
    np.testing.assert_allclose(got, b1 * summed / root / jnp.sqrt(b2), rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, T])
@pytest.mark.parametrize("betas", [(0.9, 0.9), (0.9, 0.999), (0.5, 0.8)])
def test_weighted_sums_are_adam(steps, betas):
    """Exponential weights that sum to one, which is what bias correction is for.

    With equal factors this is Eq. 101 with a weight per term; with two factors the cross
    terms and the squares have a weight each.
    """
    g = gradients()[:steps]
    first, second = (b ** jnp.arange(steps)[::-1] for b in betas)
    first, second = first / first.sum(), second / second.sum()
    adam = last(optax.scale_by_adam(*betas, eps=0.0), g)
    target = jnp.sqrt(second @ g**2)
    slope = jax.grad(lambda m: objective(m, g, target, 0.0, first, second))
    # optax takes 1 - 0.999 in float32, which leaves five digits
    assert jnp.abs(slope(adam)).max() < 1e-4
    assert jnp.abs(slope(1.1 * adam)).max() > 1e-2
    if betas[0] == betas[1]:
        with jax.numpy_rank_promotion("allow"):
            printed = lambda m: first @ jnp.sum((m * g - target) ** 2, axis=-1)
            assert jnp.abs(jax.grad(printed)(adam)).max() < 1e-5


def test_sum_of_squares_is_momentum():
    """Eq. 104: no preconditioning is left as the damping goes to zero."""
    g = gradients()
    summed, square = last(optax.trace(decay=1.0), g), jnp.sum(g**2, 0)
    np.testing.assert_allclose(optimum(g, square, 0.0), summed, rtol=1e-5)
    np.testing.assert_allclose(optimum(g, square, 1e-4), summed, rtol=1e-3)
    assert jnp.abs(optimum(g, square, 1.0) - summed).max() > 0.05


def test_outer_products_are_full_matrix_adagrad():
    """Eqs. 106-111: with `H = sum g g^T` and P its root, the optimum is `H^(-1/2) sum g`."""
    g = gradients()
    square = g.T @ g
    values, vectors = jnp.linalg.eigh(square)
    power = lambda p: (vectors * (values**p)[None]) @ vectors.T
    best = power(-0.5) @ jnp.sum(g, 0)

    def objective_of_vectors(m):
        return jnp.sum((g @ m) ** 2) - 2 * jnp.sum(g @ power(0.5) @ m)

    slope = jax.grad(objective_of_vectors)
    assert jnp.abs(slope(best)).max() < 1e-4 * jnp.abs(slope(0 * best)).max()

    # gradients along the axes: H is diagonal, and Eq. 111 is Eq. 105
    g = jnp.concatenate([jnp.diag(g[i]) for i in range(T)])
    root = jnp.diag(jnp.diag(g.T @ g) ** -0.5)
    assert jnp.abs(g.T @ g - jnp.diag(jnp.diag(g.T @ g))).max() == 0
    want = optimum(g, jnp.sqrt(jnp.sum(g**2, 0)), 0.0)
    np.testing.assert_allclose(root @ jnp.sum(g, 0), want, rtol=1e-5)
