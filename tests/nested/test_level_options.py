"""What a step passes on, what it reports, and what the state is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

from hope_jax.nested import Level, Levels


def two_levels(**fast):
    return Levels(
        (
            Level("fast", 1, optax.adam(0.1), "fast", **fast),
            Level("slow", 2, optax.adam(0.1), r"deep/.*"),
        ),
        pre=optax.clip_by_global_norm(1.0),
    )


@pytest.fixture
def params():
    return {"fast": jnp.ones((2,)), "deep": [{"slow": jnp.ones((2, 2)), "slower": jnp.ones(3)}]}


def test_levels_of_one_period_each_keep_their_own_optimizer(params):
    levels = Levels((Level("a", 2, optax.sgd(0.5), "fast"), Level("b", 2, optax.sgd(0.25))))
    state = levels.init(params)
    for _ in range(2):
        params, state, _ = levels.step(params, state, jax.tree.map(jnp.ones_like, params))
    np.testing.assert_array_equal(params["fast"], [0, 0])
    np.testing.assert_array_equal(params["deep"][0]["slow"], 0.5 * np.ones((2, 2)))


def test_the_whole_gradient_is_clipped_before_it_is_summed():
    params = {"fast": jnp.zeros(2), "slow": jnp.zeros(2)}
    levels = Levels(
        (Level("fast", 1, optax.sgd(1.0), "fast"), Level("slow", 2, optax.sgd(1.0))),
        pre=optax.clip_by_global_norm(1.0),
    )
    state = levels.init(params)
    grads = {"fast": jnp.array([3.0, 0.0]), "slow": jnp.array([0.0, 4.0])}
    for _ in range(2):
        params, state, info = levels.step(params, state, grads)
    np.testing.assert_allclose(params["fast"], [-1.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(params["slow"], [0.0, -1.6], rtol=1e-6)
    np.testing.assert_allclose([info["fast"].grad_norm, info["slow"].grad_norm], [3, 4])


def test_extra_arguments_reach_the_transformation():
    def update(updates, state, params=None, *, value, **extra):
        return jax.tree.map(lambda g: -value * g, updates), state

    polyak = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    levels = Levels((Level("a", 1, polyak, "a"), Level("b", 2, polyak, "b")))
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = levels.init(params)
    step = jax.jit(levels.step)
    for value in (1.0, 3.0):
        params, state, _ = step(params, state, jax.tree.map(jnp.ones_like, params), value=value)
    np.testing.assert_allclose([params["a"][0], params["b"][0]], [-4.0, -6.0])


def test_state_of_a_level_covers_its_own_parameters_only(params):
    state = two_levels().init(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert state.levels["fast"].grad_sum == {}
    slow = state.levels["slow"]
    shapes = jax.tree.map(jnp.shape, slow.grad_sum)
    assert shapes == {"deep": {"0": {"slow": (2, 2), "slower": (3,)}}}
    assert jax.tree.structure(slow.opt_state[0].mu) == jax.tree.structure(slow.grad_sum)


def test_a_level_can_be_saved_and_loaded_alone(params, tmp_path):
    levels = two_levels(reset_to_init=True)
    state = levels.init(params)
    for _ in range(3):
        params, state, _ = levels.step(params, state, params)
    ocp.save_checkpointables(tmp_path / "levels", state.levels)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state.levels["slow"]
    )
    loaded = ocp.load_checkpointables(tmp_path / "levels", {"slow": like})
    assert set(loaded) == {"slow"}
    jax.tree.map(np.testing.assert_array_equal, loaded["slow"], state.levels["slow"])


def test_parameters_and_state_can_be_donated():
    levels = two_levels(reset_to_init=True)
    params = {"fast": jnp.ones((2,)), "deep": {"slow": jnp.ones((2, 2))}}
    expected, expected_state = params, levels.init(params)
    moved, state = jax.tree.map(jnp.copy, (params, expected_state))
    step, donating = jax.jit(levels.step), jax.jit(levels.step, donate_argnums=(0, 1))
    for _ in range(5):
        expected, expected_state, _ = step(expected, expected_state, params)
        moved, state, _ = donating(moved, state, params)
    jax.tree.map(np.testing.assert_array_equal, moved, expected)


def test_low_precision_parameters_keep_their_type():
    params = {"w": jnp.ones(4, jnp.bfloat16)}
    levels = Levels((Level("w", 4, optax.adam(1e-2)),))
    state = levels.init(params)
    assert state.levels["w"].grad_sum["w"].dtype == jnp.float32
    for _ in range(4):
        params, state, _ = jax.jit(levels.step)(params, state, params)
    assert params["w"].dtype == jnp.bfloat16


def test_the_tick_counter_wraps_at_a_boundary():
    levels = Levels((Level("w", 3, optax.sgd(1.0)),))
    params = {"w": jnp.zeros(1)}
    last = 2**30 // 3 * 3 - 1
    state = levels.init(params).replace(tick=jnp.asarray(last, jnp.int32))
    _, state, info = levels.step(params, state, params)
    assert info["w"].updated and state.tick == 0
