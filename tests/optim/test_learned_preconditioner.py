"""The preconditioner that learns to whiten."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.optim import scale_by_learned_preconditioner


def run(tx, grads):
    def step(state, g):
        update, state = tx.update(g, state)
        return state, update

    state, made = jax.jit(lambda grads: jax.lax.scan(step, tx.init(grads[0]), grads))(grads)
    return made, state.map[""]


@pytest.mark.parametrize("transposed", [False, True])
def test_updates_of_correlated_gradients_are_white(transposed):
    keys = jax.random.split(jax.random.key(0))
    mix = jnp.linalg.qr(jax.random.normal(keys[0], (3, 3)))[0] * jnp.array([[4.0, 1.0, 0.5]])
    grads = mix @ jax.random.normal(keys[1], (3000, 3, 8))
    grads = grads.mT if transposed else grads
    made, learnt = run(scale_by_learned_preconditioner(0.03), grads)
    made = made[1000:].mT if transposed else made[1000:]
    white = jnp.mean(made @ made.mT, axis=0)
    np.testing.assert_allclose(white, jnp.trace(white) / 3 * np.eye(3), atol=0.1)
    assert learnt.shape == (3, 3)
    assert jnp.linalg.cond(jnp.cov(grads[:, :, 0].T if not transposed else grads[:, 0].T)) > 30


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_scale_does_not_matter(scale):
    grads = jax.random.normal(jax.random.key(0), (10, 2, 3))
    made, _ = run(scale_by_learned_preconditioner(), scale * grads)
    np.testing.assert_allclose(
        made, run(scale_by_learned_preconditioner(), grads)[0], rtol=1e-4, atol=1e-5
    )


def test_map_stays_positive_and_below_the_damping_where_there_is_no_gradient():
    grads = jax.random.normal(jax.random.key(0), (1000, 3, 3)).at[:, 2].set(0.0)
    _, learnt = run(scale_by_learned_preconditioner(1.0, damping=0.01), grads)
    values = jnp.linalg.eigvalsh(learnt)
    assert 0 < values[0] and values[-1] < 10.1
    np.testing.assert_allclose(learnt[2, 2], 10.0, rtol=1e-2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rate": 1.5}, "rate is 1.5; use a number from 0 to 1"),
        ({"damping": -1.0}, "damping is -1.0; use a number from 0"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        scale_by_learned_preconditioner(**options)
