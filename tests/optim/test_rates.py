"""Learning rates."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.config import LevelConfig, OptimConfig
from hope_jax.optim import dgd, learning_rate, start_at

CONFIG = OptimConfig(lr=2.0, end_lr=0.1, warmup=4, levels=(LevelConfig(4, lr_factor=0.5),))


def at_step(step, period=1, **fields):
    """Rate of the update at the end of training step `step` (from 1) of 20."""
    config = OptimConfig(**{**vars(CONFIG), **fields})
    return float(learning_rate(config, 20, period)(step // period - 1))


def test_curve_goes_up_linearly_and_down_as_a_cosine():
    np.testing.assert_allclose([at_step(s) for s in (1, 2, 4)], [0.5, 1.0, 2.0], rtol=1e-6)
    half, end = at_step(12), at_step(20)
    np.testing.assert_allclose([half, end], [2.0 * 0.55, 2.0 * 0.1], rtol=1e-5)
    np.testing.assert_allclose(at_step(25), end)
    np.testing.assert_allclose([at_step(s, schedule="constant") for s in (2, 12)], [1.0, 2.0])
    np.testing.assert_allclose(at_step(1, warmup=0, schedule="constant"), 2.0)


def test_slow_levels_follow_the_same_curve_at_their_own_steps():
    for step in (2, 6, 14, 20):
        np.testing.assert_allclose(at_step(step, 2), at_step(step), rtol=1e-6)
    for step in (4, 8, 20):
        np.testing.assert_allclose(at_step(step, 4), 0.5 * at_step(step), rtol=1e-6)


def test_a_run_shorter_than_its_warm_up_never_reaches_the_peak():
    rates = [float(learning_rate(OptimConfig(lr=1.0, warmup=100), 5)(n)) for n in range(5)]
    np.testing.assert_allclose(rates, np.arange(1, 6) / 100, rtol=1e-6)


HALVING = lambda count: 0.5**count
SCHEDULED = {
    "rate": lambda: optax.sgd(HALVING),
    "weight_decay": lambda: optax.adamw(HALVING, weight_decay=HALVING),
    "dgd": lambda: dgd(HALVING, momentum=0.9),
    "inject": lambda: optax.inject_hyperparams(optax.sgd)(HALVING),
    "inject_inner": lambda: optax.inject_hyperparams(
        lambda decay: optax.sgd(HALVING, momentum=decay)
    )(decay=HALVING),
    "muon": lambda: optax.contrib.muon(HALVING),
}


@pytest.mark.parametrize("name", SCHEDULED)
def test_start_at_moves_every_schedule(name):
    """Three halvings later the step is an eighth. A first step reads no momentum."""
    params = {"w": jnp.eye(2)}
    tx = SCHEDULED[name]()
    update = lambda state: tx.update(params, state, params, **extra)[0]["w"]
    extra = {"inputs": {}} if name == "dgd" else {}
    fresh = tx.init(params)
    if name == "weight_decay":  # Adam's own step apart
        bare = optax.adamw(HALVING, weight_decay=0.0)
        step = bare.update(params, bare.init(params), params)[0]["w"]
        first, later = update(fresh) - step, update(start_at(fresh, 3)) - step / 8
        np.testing.assert_allclose(later, first / 64, atol=1e-6)
    else:
        np.testing.assert_allclose(update(start_at(fresh, 3)), update(fresh) / 8, rtol=1e-6)


def test_start_at_refuses_a_count_that_it_does_not_know():
    state = optax.contrib.prodigy(HALVING).init({"w": jnp.eye(2)})
    with pytest.raises(ValueError, match="reads the count of ProdigyState"):
        start_at(state, 3)
