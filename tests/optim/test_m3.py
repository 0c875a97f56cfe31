"""M3 against a transcription of Algorithm 1 in NumPy, and what the practical form changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from hope_jax.optim import m3, orthogonalize, scale_by_m3, scale_by_m3_literal

STEPS, CUBIC, QUINTIC = 5, (1.5, -0.5, 0.0), (3.4445, -4.7750, 2.0315)


def gradients(count, shape=(4, 6), seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape))


def newton_schulz(m, coefficients):
    a, b, c = coefficients
    x = m / (np.linalg.norm(m) + 1e-8)
    for _ in range(STEPS):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


def algorithm_1(grads, f, b1, b2, b3, alpha, eps, coefficients):
    """The steps of Algorithm 1 with f terms per sum, without the learning rate."""
    m1, m2, v = (np.zeros_like(grads[0]) for _ in range(3))
    steps = []
    for k in range(len(grads) // f + 1):
        for i in range((k - 1) * f, k * f):  # the gradients of the inner loop before
            if i >= 0:
                m2 = m2 + b3 * grads[i]
        o2 = newton_schulz(m2, coefficients)
        for t in range(k * f, min((k + 1) * f, len(grads))):
            m1 = m1 + b1 * grads[t]
            v = v + b2 * grads[t] ** 2
            o1 = newton_schulz(m1, coefficients)
            steps.append((o1 + alpha * o2) / (np.sqrt(v) + eps))
    return steps


def updates_of(tx, grads, params=None):
    """Updates and states of all steps."""
    state, update, found = tx.init({"w": jnp.zeros(grads[0].shape)}), jax.jit(tx.update), []
    for g in grads:
        made, state = update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        found.append((np.asarray(made["w"]), state))
    return found


@pytest.mark.parametrize("coefficients", [CUBIC, QUINTIC], ids=["cubic", "quintic"])
@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("scale", [1e-2, 10.0])
def test_literal_form_is_algorithm_1(coefficients, period, scale):
    constants = {"b1": 0.9, "b2": 0.5, "b3": 0.7, "alpha": 0.6, "eps": 1e-6}
    grads = scale * gradients(3 * period + 2)
    tx = scale_by_m3_literal(period=period, coefficients=coefficients, **constants)
    expected = algorithm_1(grads, period, coefficients=coefficients, **constants)
    for (made, _), step in zip(updates_of(tx, grads), expected, strict=True):
        np.testing.assert_allclose(made, step, rtol=2e-3, atol=2e-3 * np.abs(step).max())


def test_literal_steps_shrink_and_practical_steps_do_not():
    grads = np.repeat(gradients(1), 64, axis=0)
    size = lambda tx: [np.linalg.norm(made) for made, _ in updates_of(tx, grads)]
    literal, practical = (
        size(scale_by_m3_literal(period=4)),
        size(scale_by_m3(period=4, b2=0.5)),
    )
    np.testing.assert_allclose(literal[63] / literal[15], 0.5, rtol=0.02)  # sqrt(16 / 64)
    np.testing.assert_allclose(practical[63] / practical[15], 1.0, rtol=0.02)


def test_slow_step_is_zero_for_a_period_then_constant_and_late_by_one():
    grads = gradients(9)
    found = updates_of(scale_by_m3(b3=0.5, period=3), grads)
    slow = [np.asarray(state.slow_step["w"]) for _, state in found]  # after each update
    assert not slow[0].any() and not slow[1].any()
    for i in (2, 5):
        np.testing.assert_array_equal(slow[i], slow[i + 1])
        np.testing.assert_array_equal(slow[i], slow[i + 2])
    mean = [grads[i : i + 3].mean(0) for i in (0, 3)]
    for average, made in ((mean[0], slow[2]), (0.5 * mean[0] + mean[1], slow[5])):
        np.testing.assert_allclose(made, newton_schulz(average, QUINTIC), atol=2e-4)


def test_update_is_the_fast_step_and_alpha_times_the_slow_one():
    grads = gradients(6)
    plain = functools.partial(scale_by_m3, period=2, second_moment="none")
    fast, both = (updates_of(plain(alpha=alpha), grads) for alpha in (0.0, 0.3))
    slow = [np.zeros_like(grads[0]), *(np.asarray(s.slow_step["w"]) for _, s in both)]
    divided = updates_of(scale_by_m3(alpha=0.3, b2=0.5, period=2), grads)
    square = np.zeros_like(grads[0])
    for i in range(6):
        np.testing.assert_allclose(both[i][0], fast[i][0] + 0.3 * slow[i], atol=1e-5)
        square = 0.5 * square + 0.5 * grads[i] ** 2
        root = np.sqrt(square / (1 - 0.5 ** (i + 1)))
        np.testing.assert_allclose(divided[i][0] * root, both[i][0], atol=1e-4)
    assert slow[5].any()


def test_without_the_slow_momentum_it_is_muon():
    grads = gradients(5)
    dims = {"w": MuonDimensionNumbers()}
    muon = scale_by_muon(beta=0.95, nesterov=False, weight_dimension_numbers=dims)
    muon = updates_of(muon, grads)
    found = scale_by_m3(0.95, alpha=0.0, nesterov=False, second_moment="none")
    found = updates_of(found, grads)
    for (a, _), (b, _) in zip(muon, found, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_scale_of_gradients_does_not_matter():
    grads = gradients(4)
    for second_moment in ("none", "gradient"):
        tx = scale_by_m3(period=2, second_moment=second_moment, eps=1e-12)
        small = np.stack([made for made, _ in updates_of(tx, 1e-3 * grads)])
        large = np.stack([made for made, _ in updates_of(tx, 1e3 * grads)])
        if second_moment == "gradient":  # divides by the gradient's size
            large, small = 1e3 * large, 1e-3 * small
        np.testing.assert_allclose(small, large, rtol=5e-3, atol=1e-3)


def test_a_stack_of_heads_is_as_many_matrices():
    grads = gradients(4, (2, 4, 3, 2))  # layers, rows, heads, columns
    dims = lambda tree: jax.tree.map(lambda _: MuonDimensionNumbers(1, (2, 3)), tree)
    stacked = updates_of(scale_by_m3(period=2, dims=dims), grads)
    for layer in range(2):
        alone = updates_of(scale_by_m3(period=2), grads[:, layer].reshape(4, 4, 6))
        for (a, _), (b, _) in zip(stacked, alone, strict=True):
            np.testing.assert_allclose(a[layer].reshape(4, 6), b, atol=2e-4)


def test_matrices_by_m3_and_the_rest_by_adamw():
    params = {"w": jnp.ones((4, 6)), "b": jnp.ones(6), "conv": jnp.ones((2, 4, 6))}
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(0), p.shape), params)
    tx = m3(0.1, period=2, weight_decay=0.5, match_rms=0.2)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    adamw = optax.adamw(0.1, b2=0.95, weight_decay=0.5)
    expected, _ = adamw.update(grads, adamw.init(params), params)
    for name in ("b", "conv"):
        np.testing.assert_allclose(updates[name], expected[name], rtol=1e-5)
    moved = np.asarray(updates["w"]) + 0.1 * 0.5  # weight decay apart
    np.testing.assert_allclose(np.sqrt(np.mean(moved**2)), 0.1 * 0.2, rtol=1e-4)
    ortho = orthogonalize()
    direction, _ = ortho.update({"w": grads["w"]}, ortho.init(params))
    direction = direction["w"] / np.abs(grads["w"])  # the first second moment
    cosine = np.vdot(-moved, direction) / np.linalg.norm(moved) / np.linalg.norm(direction)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-4)


@pytest.mark.parametrize("rule", [scale_by_m3, scale_by_m3_literal])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"period": 0}, "period is 0; use a whole number from 1"),
        ({"period": 2.5}, "period is 2.5; use a whole number from 1"),
        ({"b1": -0.1}, "b1 is -0.1"),
        ({"b3": 1.0}, "b3 is 1.0"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"steps": 0}, "steps is 0"),
    ],
    ids=str,
)
def test_values_that_cannot_be(rule, arguments, said):
    with pytest.raises(ValueError, match=f"{rule.__name__}: {said}"):
        rule(**arguments)


def test_vectors_are_refused_with_the_way_out():
    for rule in (scale_by_m3, scale_by_m3_literal):
        with pytest.raises(ValueError, match=r"matrices, but 'b' has shape \(3,\).*AdamW"):
            rule().init({"b": jnp.ones(3)})


def test_a_period_that_is_injected_has_to_be_static():
    params = {"w": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match="static_args"):
        optax.inject_hyperparams(scale_by_m3)(period=4).init(params)
    make = functools.partial(optax.inject_hyperparams, static_args=("period", "steps"))
    tx = make(scale_by_m3)(alpha=0.5, period=4)
    state = tx.init(params)
    assert float(state.hyperparams["alpha"]) == 0.5
