"""Single ticks against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.nested import Level, Levels

PERIODS = {"fast": 1, "mid": 2, "slow": 6}
RATES = {"fast": 0.1, "mid": 0.05, "slow": 0.02}


@pytest.fixture(scope="module")
def params():
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        name: {"w": jax.random.normal(key, (2, 3)), "b": jnp.ones((3,))}
        for name, key in zip(PERIODS, keys, strict=True)
    }


@pytest.fixture(scope="module")
def grads(params):
    """Gradients of 13 ticks, given beforehand."""
    return [
        jax.tree.map(lambda x, t=t: jax.random.normal(jax.random.key(t), x.shape), params)
        for t in range(13)
    ]


def sgd_levels(**options):
    return Levels(
        tuple(
            Level(name, period, optax.sgd(RATES[name]), name, **options)
            for name, period in PERIODS.items()
        )
    )


def norm(tree):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_each_level_takes_one_step_per_period_on_its_summed_gradient(params, grads, reduction):
    levels = sgd_levels(reduction=reduction)
    state = levels.init(params)
    step = jax.jit(levels.step)
    expected = jax.tree.map(np.asarray, params)
    sums = jax.tree.map(np.zeros_like, expected)
    for t, grad in enumerate(grads, start=1):
        before = params
        params, state, info = step(params, state, grad)
        assert state.tick == t
        for name, period in PERIODS.items():
            sums[name] = jax.tree.map(np.add, sums[name], grad[name])
            np.testing.assert_allclose(info[name].grad_norm, norm(grad[name]), rtol=1e-6)
            assert bool(info[name].updated) == (t % period == 0)
            if t % period:  # bit-identical until the boundary
                jax.tree.map(np.testing.assert_array_equal, params[name], before[name])
                assert info[name].update_norm == 0
                continue
            rate = RATES[name] / (period if reduction == "mean" else 1)
            change = jax.tree.map(lambda s, rate=rate: -rate * s, sums[name])
            np.testing.assert_allclose(info[name].update_norm, norm(change), rtol=1e-6)
            expected[name] = jax.tree.map(np.add, expected[name], change)
            sums[name] = jax.tree.map(np.zeros_like, sums[name])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), params, expected)
    assert step._cache_size() == 1


def test_one_level_of_adamw_is_optax_adamw_to_the_bit(params, grads):
    tx = optax.adamw(1e-2, weight_decay=0.1)
    levels = Levels((Level("all", 1, tx),))
    step = jax.jit(levels.step)
    state = levels.init(params)

    @jax.jit
    def plain(params, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    reference, opt_state = params, tx.init(params)
    for grad in grads:
        params, state, _ = step(params, state, grad)
        reference, opt_state = plain(reference, opt_state, grad)
        jax.tree.map(np.testing.assert_array_equal, params, reference)
    jax.tree.map(np.testing.assert_array_equal, state.levels["all"].opt_state, opt_state)


def test_slow_adamw_equals_optax_multi_steps_on_the_mean(params, grads):
    tx = optax.adamw(1e-2)
    levels = Levels((Level("all", 4, tx, reduction="mean"),))
    multi = optax.MultiSteps(tx, 4)
    step, plain = jax.jit(levels.step), jax.jit(multi.update)
    reference, state, multi_state = params, levels.init(params), multi.init(params)
    for grad in grads:
        params, state, _ = step(params, state, grad)
        updates, multi_state = plain(grad, multi_state, reference)
        reference = optax.apply_updates(reference, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), params, reference)
    assert state.levels["all"].opt_state[0].count == len(grads) // 4
