"""The training step as a pure function, on a model of two matrices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.config import DataConfig, OptimConfig, TrainConfig
from hope_jax.nested import Level, Levels
from hope_jax.training import finite
from hope_jax.training.state import TrainState
from hope_jax.training.step import checked, make_step

LEVELS = Levels(
    (Level("period_1", 1, optax.adamw(0.1)), Level("period_2", 2, optax.adamw(0.1), "slow"))
)
CONFIG = TrainConfig(data=DataConfig(batch=8), optim=OptimConfig(lr=0.1, warmup=4))


def losses(params, batch):
    """Square of a two-layer network plus `blow` times something without a gradient at 0."""
    y_BT = jnp.sin(batch["x"] @ params["fast"]) @ params["slow"]
    hurt = batch["blow"][:, None] * jnp.sqrt(jnp.sum(params["trap"] ** 2))
    return y_BT**2 + hurt, {"size": jnp.abs(y_BT).mean(), "write_events": jnp.float32(3)}


def make_batch(seed, blow=0.0):
    x_BT = jax.random.normal(jax.random.key(seed), (8, 4))
    return {"x": x_BT, "blow": jnp.full((8,), blow)}


@pytest.fixture
def state():
    keys = jax.random.split(jax.random.key(0))
    params = {
        "fast": jax.random.normal(keys[0], (4, 4)),
        "slow": jax.random.normal(keys[1], (4, 4)),
        "trap": jnp.ones((2,)),
    }
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, params, LEVELS.init(params))


@pytest.fixture(scope="module")
def step():
    return jax.jit(make_step(losses, LEVELS, CONFIG))


def name_of(state, metrics):
    info = jax.eval_shape(LEVELS.step, state.params, state.levels, state.params)[2]
    names = finite.names(checked(state.params, 0.0, state.params, 0.0, info))
    return names[int(metrics["bad_tensor"])]


def test_metrics_and_no_second_compilation(state, step):
    for i in range(4):
        state, metrics = step(state, make_batch(i))
        assert int(metrics["bad_tensor"]) == -1
        assert (float(metrics["update_norm/period_2"]) > 0) == (i % 2 == 1)
    assert step._cache_size() == 1
    assert int(state.step) == 4 and int(state.skipped) == 0
    assert {"loss", "grad_norm", "lr", "update_norm/period_1", "stats/size"} <= set(metrics)
    np.testing.assert_allclose(metrics["lr"], 0.1)


def test_micro_batches_add_up_to_the_batch(state, step):
    parts = jax.jit(make_step(losses, LEVELS, dataclasses.replace(CONFIG, accumulate=4)))
    batch = make_batch(0)
    (whole, a), (summed, b) = step(state, batch), parts(state, batch)
    for name in ("loss", "grad_norm", "stats/size", "update_norm/period_1"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, err_msg=name)
    assert float(a["stats/write_events"]) == 3 and float(b["stats/write_events"]) == 12
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        whole.params,
        summed.params,
    )


@pytest.mark.parametrize(
    ("poison", "blow", "first"),
    [
        (lambda p: p, np.nan, "loss"),
        (lambda p: p | {"trap": jnp.zeros((2,))}, 1.0, "gradient of trap"),
        (lambda p: p, 1e20, "norm of the gradient"),  # whose squares are too large
        (lambda p: p | {"slow": p["slow"].at[0, 0].set(jnp.inf)}, 0.0, "parameter slow"),
    ],
)
def test_what_is_not_finite_is_skipped_counted_and_named(state, step, poison, blow, first):
    state, _ = step(state, make_batch(0))
    state = state.replace(params=poison(state.params))
    after, metrics = step(state, make_batch(1, blow))
    assert name_of(state, metrics) == first
    assert int(after.step) == 2 and int(after.skipped) == 1
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, after.levels, state.levels)
    if first == "loss":  # the next good step goes on as if nothing had been
        good, metrics = step(after, make_batch(2))
        assert int(good.skipped) == 1
        np.testing.assert_allclose(metrics["lr"], 0.1 * 2 / 4, rtol=1e-6)


def test_an_update_that_is_not_finite_is_skipped(state):
    explode = Levels((Level("all", 1, optax.sgd(np.inf)),))
    state = state.replace(levels=explode.init(state.params))
    after, metrics = jax.jit(make_step(losses, explode, CONFIG))(state, make_batch(0))
    assert int(metrics["bad_tensor"]) == 2 * 3 + 2  # after parameters, loss, gradients, norm
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_bad_steps_in_a_row_stop_the_run_and_single_ones_do_not():
    bad = finite.BadSteps(3, ["parameter w", "loss"])
    for step, tensor in enumerate([1, 1, -1, 1, -1, 1, 0]):
        bad.see(step, tensor)
        bad.check()
    assert bad.see(7, 0) == "parameter w"
    with pytest.raises(finite.NonFinite, match="3 steps .* first was step 5.* the loss went"):
        bad.check()
