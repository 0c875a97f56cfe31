"""Closed forms of momenta against descent on their objectives, which JAX differentiates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import scale_by_muon

from hope_jax.optim import (
    orthogonalize,
    scale_by_delta_momentum,
    scale_by_feature_momentum,
    scale_by_generalized_momentum,
    scale_by_preconditioned_momentum,
)


def gradients(count=4, shape=(3, 2)):
    return list(jax.random.normal(jax.random.key(0), (count, *shape)))


def run(tx, grads, **extra):
    """Updates for a list of gradients."""
    state, made, update = tx.init(grads[0]), [], jax.jit(tx.update)
    for g in grads:
        u, state = update(g, state, **extra)
        made.append(u)
    return np.array(made)


def signed_root(g):
    return jnp.sign(g) * jnp.sqrt(jnp.abs(g))


def forget(m, g):  # half of |m g^T|^2 for the paper's orientation, [Z, K]
    return 0.5 * jnp.sum((g.T @ m) ** 2)


CASES = {
    "plain": (optax.trace(0.7), lambda m, g: jnp.vdot(m, g)),
    "preconditioned value": (
        scale_by_preconditioned_momentum(optax.scale_by_sign(), 0.7),
        lambda m, g: jnp.vdot(m, jnp.sign(g)),
    ),
    "feature": (
        scale_by_feature_momentum("sqrt", 0.7),
        lambda m, g: jnp.vdot(m, signed_root(g)),
    ),
    "own feature, then value": (
        scale_by_feature_momentum(jnp.sin, 0.7, value=optax.scale(3.0)),
        lambda m, g: 3 * jnp.vdot(m, jnp.sin(g)),
    ),
    "delta as printed": (
        scale_by_delta_momentum(0.7, "literal"),
        lambda m, g: forget(m, g) + jnp.vdot(m, g),
    ),
    "delta with a value and a step": (
        scale_by_delta_momentum(0.7, "literal", delta=0.1, value=optax.scale_by_sign()),
        lambda m, g: 0.1 * forget(m, g) + jnp.vdot(m, jnp.sign(g)),
    ),
    "delta on the other side": (
        scale_by_delta_momentum(0.7, "literal", side="output"),
        lambda m, g: forget(m.T, g.T) + jnp.vdot(m, g),
    ),
    "delta, normalised": (
        scale_by_delta_momentum(0.7, delta=0.4),
        lambda m, g: 0.4 * forget(m, g) / jnp.sum(g**2) + jnp.vdot(m, g),
    ),
    "delta, proximal": (
        scale_by_delta_momentum(0.7, "proximal", delta=0.4),
        lambda m, g: 0.4 * forget(m, g) / (1 + 0.4 * jnp.sum(g**2)) + jnp.vdot(m, g),
    ),
}


@pytest.mark.parametrize("shape", [(3, 2), (2, 3)])
@pytest.mark.parametrize("case", CASES)
def test_closed_form_is_descent_on_its_objective(case, shape):
    closed, objective = CASES[case]
    made = run(closed, gradients(shape=shape))
    wanted = run(scale_by_generalized_momentum(objective, 0.7), gradients(shape=shape))
    np.testing.assert_allclose(made, wanted, rtol=2e-5, atol=1e-5)


def test_inner_steps_descend_further():
    def distance(m, g):
        return 0.5 * jnp.sum((m + g) ** 2)

    g = jnp.array([[8.0, -8.0]])
    made = run(scale_by_generalized_momentum(distance, 1.0, 0.5, inner_steps=3), [g])
    np.testing.assert_allclose(made[0], g * (1 - 0.5**3))


def test_objective_can_take_the_inputs_of_the_layer():
    """The delta rule keyed by the layer's input, as in Eq. 36."""

    def delta(m, g, x):
        return 0.5 * jnp.sum((x @ m) ** 2) + jnp.vdot(m, g)

    tx = scale_by_generalized_momentum(delta, 1.0)
    x, grads = jnp.array([[1.0, 0.0, 0.0]]), [jnp.ones((3, 2)), jnp.ones((3, 2))]
    made = run(tx, grads, inputs=x)
    np.testing.assert_allclose(made[1], [[1, 1], [2, 2], [2, 2]])
    with pytest.raises(ValueError, match=r"takes inputs; call update\(..., inputs=tree\)"):
        tx.update(grads[0], tx.init(grads[0]))


def test_orthogonalised_memory_is_muon():
    """Eq. 52: a linear memory with Newton-Schulz for its output."""
    chained = run(optax.chain(optax.trace(0.8), orthogonalize()), gradients())
    muon = run(scale_by_muon(beta=0.8, nesterov=False), gradients())
    np.testing.assert_allclose(chained, muon, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["preconditioned value", "feature", "delta, normalised"])
def test_bfloat16_is_accumulated_in_float32(case):
    tx = CASES[case][0]
    g = jnp.ones((2, 2), jnp.bfloat16)
    update, state = tx.update(g, tx.init(g))
    assert update.dtype == jnp.bfloat16
    kept = {x.dtype for x in jax.tree.leaves(state)}
    assert kept == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: scale_by_generalized_momentum(jnp.vdot, decay=-0.1), "decay is -0.1; use a"),
        (lambda: scale_by_generalized_momentum(jnp.vdot, rate=-1.0), "rate is -1.0; use a"),
        (lambda: scale_by_generalized_momentum(jnp.vdot, inner_steps=0), "inner_steps is 0"),
        (lambda: scale_by_feature_momentum("cube"), "feature is 'cube'; use one of 'identity'"),
        (lambda: scale_by_preconditioned_momentum(optax.identity(), -1), "decay is -1"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_objective_that_is_no_scalar_is_refused():
    tx = scale_by_generalized_momentum(lambda m, g: m * g)
    with pytest.raises(ValueError, match=r"objective has shape \(3, 2\); make it a scalar"):
        run(tx, gradients())
