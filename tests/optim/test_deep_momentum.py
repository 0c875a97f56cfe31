"""The memory of deep momentum: what it learns, what it leaves, that it stays bounded."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.optim import scale_by_deep_momentum

OBJECTIVES = ("l2", "dot", "ones")


def gradients(steps, shape=(4, 3)):
    return jax.random.normal(jax.random.key(0), (steps, *shape))


def run(tx, grads):
    """All updates, and the last state, of one scan."""

    def step(state, g):
        update, state = tx.update(g, state)
        return state, update

    first = jax.tree.map(lambda g: g[0], grads)
    state, made = jax.jit(lambda grads: jax.lax.scan(step, tx.init(first), grads))(grads)
    return made, state


def momentum(decay, grads):
    """Heavy-ball momentum, of root mean square one."""
    made, _ = run(optax.trace(decay), grads)
    return made / jnp.sqrt(jnp.mean(made**2, axis=(-2, -1), keepdims=True))


def test_memory_that_learns_nothing_is_normalised_momentum():
    made, _ = run(scale_by_deep_momentum(rate=0.0, trace=0.8), gradients(5))
    np.testing.assert_allclose(made, momentum(0.8, gradients(5)), rtol=1e-5, atol=1e-6)


def test_first_write_is_the_gradient_of_the_objective():
    """The hidden layer of the first key, times what the memory lacks: v - u or v."""
    grads = gradients(2)
    u, v = (g / jnp.linalg.norm(g, axis=-1, keepdims=True) for g in grads)
    for objective, target in (("l2", v - u), ("dot", v)):
        tx = scale_by_deep_momentum(hidden=5, rate=0.4, objective=objective)
        _, state = run(tx, grads)
        memory = state.memory[""]
        w_in = tx.init(grads[0]).memory[""]["w_in"]
        hidden = jnp.tanh(u @ w_in) / 5**0.5
        np.testing.assert_allclose(
            memory["w_out"], 0.4 * hidden.T @ target / 4, rtol=1e-4, atol=1e-6
        )


def test_l2_predicts_gradients_that_turn():
    """Gradients turn by a right angle at every step: nothing that momentum can follow."""
    turn = jnp.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    grads = [gradients(1)[0].at[:, 2].set(0.0)]
    for _ in range(400):
        grads.append(grads[-1] @ turn)
    grads = jnp.array(grads)

    def agreement(made):
        each = jnp.sum(made[:-1] * grads[1:], axis=(-2, -1))
        size = jnp.linalg.norm(made[:-1], axis=(-2, -1))
        return float((each / size / jnp.linalg.norm(grads[0]))[-1])

    learnt, _ = run(scale_by_deep_momentum(rate=1.0, decay=1.0), grads)
    assert agreement(learnt) > 0.95 and agreement(momentum(0.9, grads)) < 0.8


def test_literal_objective_adds_nothing_but_a_multiple_of_ones():
    grads = gradients(30)
    made, _ = run(scale_by_deep_momentum(objective="ones"), grads)
    added = made - momentum(0.9, grads)
    assert np.max(np.abs(added[-1])) > 0.01
    spread = added - jnp.mean(added, axis=-1, keepdims=True)
    np.testing.assert_allclose(spread, 0, atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_long_runs_stay_finite_and_do_not_depend_on_the_scale(objective, scale):
    grads = gradients(2000) * jnp.where(jnp.arange(2000) % 7 == 0, 30.0, 1.0)[:, None, None]
    tx = scale_by_deep_momentum(hidden=8, rate=1.0, objective=objective)
    made, state = run(tx, scale * grads)
    assert np.all(np.isfinite(made))
    assert jnp.linalg.norm(state.memory[""]["w_out"], 2) <= 2 / (1 - 0.99)
    # Compared early: what follows is chaotic at this rate.
    early, _ = run(tx, grads[:20])
    np.testing.assert_allclose(made[:20], early, rtol=1e-2, atol=1e-3)


def test_zero_gradients_and_zero_rows_are_harmless():
    grads = gradients(6).at[2:4].set(0.0).at[:, 1].set(0.0)
    made, _ = run(scale_by_deep_momentum(), grads)
    assert np.all(np.isfinite(made)) and not made[:, 1].any()
    nothing, _ = run(scale_by_deep_momentum(), 0 * grads)
    np.testing.assert_array_equal(nothing, 0)


def test_memory_is_written_at_its_period_on_the_mean_of_its_gradients():
    tx = scale_by_deep_momentum(period=3, rate=0.5)
    grads = gradients(3)
    state, updates = tx.init(grads[0]), []
    step = jax.jit(tx.update)
    for g in grads:
        before = state.memory[""]["w_out"]
        update, state = step(g, state)
        updates.append(bool(jnp.any(state.memory[""]["w_out"] != before)))
    assert updates == [False, False, True]
    # W_out is zero until then, and the loss is linear in what the steps share: the hidden
    # layer is that of the initial W_in.
    w_in = tx.init(grads[0]).memory[""]["w_in"]
    trace, wanted = grads[0], 0.0
    for g in grads[1:]:
        u, v = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (trace, g))
        hidden = jnp.tanh(u @ w_in) / 64**0.5
        wanted += 0.5 * hidden.T @ (v - u) / 4 / 3
        trace = 0.9 * trace + g
    np.testing.assert_allclose(state.memory[""]["w_out"], wanted, rtol=1e-4, atol=1e-6)


def test_a_stack_of_matrices_has_as_many_memories():
    dims = optax.contrib.MuonDimensionNumbers(1, 2)
    grads = gradients(4, (2, 4, 3))
    tx = scale_by_deep_momentum(hidden=6, dims={"w": dims})
    made, state = run(tx, {"w": grads})
    assert state.memory["w"]["w_in"].shape == (2, 3, 6)
    # The second layer's memory does not see the first layer's gradients.
    other, _ = run(tx, {"w": grads.at[:, 0].set(1.0)})
    np.testing.assert_array_equal(made["w"][:, 1], other["w"][:, 1])


def test_comes_to_a_lower_loss_on_a_noisy_regression():
    """Against momentum and descent, all with normalised updates at the best of three rates."""
    keys = jax.random.split(jax.random.key(0), 5)

    def normal(i, *shape):
        return jax.random.normal(keys[i], shape) / shape[0] ** 0.5

    inner, outer = 2**0.5 * normal(0, 8, 16), normal(1, 16, 4)  # the teacher
    start = {"w": normal(2, 8, 32), "v": normal(3, 32, 4)}
    scale = jnp.logspace(0, -1, 8)[None]

    def loss(p, key, batch):
        x = scale * jax.random.normal(key, (batch, 8))
        return jnp.mean((jnp.tanh(x @ p["w"]) @ p["v"] - jnp.tanh(x @ inner) @ outer) ** 2)

    def final(tx, rate, steps=600):
        def step(carry, i):
            p, state = carry
            grads = jax.grad(loss)(p, jax.random.fold_in(keys[4], i), 16)
            update, state = tx.update(grads, state)
            size = rate * 0.5 * (1 + jnp.cos(jnp.pi * i / steps))
            return (jax.tree.map(lambda a, u: a - size * u, p, update), state), None

        (p, _), _ = jax.lax.scan(step, (start, tx.init(start)), jnp.arange(steps))
        return loss(p, keys[4], 512)

    @jax.jit
    def best(rates):
        rules = {
            "deep": scale_by_deep_momentum(),
            "momentum": scale_by_deep_momentum(rate=0.0),
            "descent": scale_by_deep_momentum(rate=0.0, trace=0.0),
        }
        return {
            name: jnp.min(jax.vmap(lambda rate, tx=tx: final(tx, rate))(rates))
            for name, tx in rules.items()
        }

    losses = best(jnp.array([0.003, 0.01, 0.03]))
    assert losses["deep"] < 0.7 * losses["momentum"]
    assert losses["deep"] < 0.5 * losses["descent"]


def test_size_is_one_at_first_and_grows_with_what_dot_and_ones_add():
    noise = jax.random.normal(jax.random.key(1), (300, 32, 16))
    grads = gradients(1, (32, 16)) + 0.3 * noise
    for objective, low, high in (("l2", 0.9, 1.0), ("dot", 2.0, 3.0), ("ones", 1.5, 3.0)):
        made, _ = run(scale_by_deep_momentum(hidden=16, objective=objective), grads)
        sizes = jnp.sqrt(jnp.mean(made**2, axis=(-2, -1)))
        np.testing.assert_allclose(sizes[0], 1.0, rtol=1e-3)
        assert low < sizes[-1] < high, objective


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objective": "max"}, "objective is 'max'; use one of 'l2', 'dot', 'ones'"),
        ({"hidden": 0}, "hidden is 0; use a whole number from 1"),
        ({"period": 1.5}, "period is 1.5; use a whole number from 1"),
        ({"rate": 1.5}, "rate is 1.5; use a number from 0 to 1"),
        ({"rate": -1.0, "objective": "dot"}, "rate is -1.0; use a number from 0"),
        ({"decay": 1.1}, "decay is 1.1; use a number from 0 to 1"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        scale_by_deep_momentum(**options)


def test_what_fixes_shapes_cannot_be_injected():
    tx = optax.inject_hyperparams(scale_by_deep_momentum)()
    with pytest.raises(ValueError, match="hidden is an array.*static_args"):
        tx.init(jnp.ones((2, 2)))
