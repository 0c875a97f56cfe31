"""What the step of delta momentum does, as printed and as it is by default."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.optim import scale_by_delta_momentum


def last(tx, scale, steps=50):
    """Size of the update after many random gradients of one scale, in units of it."""
    grads = scale * jax.random.normal(jax.random.key(0), (steps, 4, 3))

    def step(state, g):
        update, state = tx.update(g, state)
        return state, update

    _, updates = jax.jit(lambda grads: jax.lax.scan(step, tx.init(grads[0]), grads))(grads)
    return updates[-1] / scale


def test_as_printed_it_diverges_above_one_and_is_plain_momentum_below():
    literal = scale_by_delta_momentum(step="literal")
    assert not np.all(np.abs(last(literal, 3.0)) < 1e6)
    plain = last(optax.trace(0.9), 1e-4)
    np.testing.assert_allclose(last(literal, 1e-4), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e25])
def test_by_default_the_scale_of_gradients_does_not_matter(scale):
    made, plain = (last(tx, scale) for tx in (scale_by_delta_momentum(), optax.trace(0.9)))
    np.testing.assert_allclose(made, last(scale_by_delta_momentum(), 1.0), rtol=1e-3, atol=1e-4)
    assert np.max(np.abs(made - plain)) > 0.1


def test_proximal_step_is_bounded_for_any_scale():
    proximal = scale_by_delta_momentum(step="proximal")
    full = scale_by_delta_momentum(delta=1.0)
    np.testing.assert_allclose(last(proximal, 1e25), last(full, 1.0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        last(proximal, 1e-6), last(optax.trace(0.9), 1.0), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("side, kept", [("input", [0.0, 0.9]), ("output", [0.9, 0.0])])
def test_forgets_what_the_gradient_holds_and_keeps_the_rest(side, kept):
    tx = scale_by_delta_momentum(decay=0.9, delta=0.9, side=side)
    first = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    second = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    _, state = tx.update(first, tx.init(first))
    update, _ = tx.update(second, state)
    np.testing.assert_allclose([update[0, 1], update[1, 0]], kept, atol=1e-6)


def test_zero_gradients_forget_nothing_but_what_decays():
    tx = scale_by_delta_momentum(decay=0.5)
    g = jnp.ones((2, 2))
    _, state = tx.update(g, tx.init(g))
    update, _ = tx.update(0 * g, state)
    np.testing.assert_allclose(update, 0.5 * g)


def test_a_stack_of_matrices_is_as_many_momenta():
    grads = jax.random.normal(jax.random.key(0), (2, 3, 4, 2))  # step, layer, K, Z
    dims = optax.contrib.MuonDimensionNumbers(1, 2)
    stacked, alone = scale_by_delta_momentum(dims={"w": dims}), scale_by_delta_momentum()
    state = stacked.init({"w": grads[0]})
    for g in grads:
        update, state = stacked.update({"w": g}, state)
    for layer in range(3):
        one = alone.init(grads[0, layer])
        for g in grads[:, layer]:
            wanted, one = alone.update(g, one)
        np.testing.assert_allclose(update["w"][layer], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"step": "exact"}, "step is 'exact'; use one of 'normalized', 'proximal', 'literal'"),
        ({"side": "left"}, "side is 'left'; use one of 'input', 'output'"),
        ({"decay": -0.9}, "decay is -0.9; use a number from 0"),
        ({"delta": 1.5}, "delta is 1.5, which forgets more than there is"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        scale_by_delta_momentum(**options)


def test_a_vector_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match=r"works on matrices, but 'b' has shape \(3,\)"):
        scale_by_delta_momentum().init({"b": jnp.ones(3)})
