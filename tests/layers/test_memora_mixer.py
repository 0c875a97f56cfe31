"""Memora as a mixer: its options and where it starts."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import MemoraConfig, ModelConfig
from hope_jax.layers.registry import make_mixer

DIM = 32


@functools.cache
def started(mixer):
    module = make_mixer(ModelConfig(dim=DIM, depth=1, mixer=mixer))
    x_BTD = jax.random.normal(jax.random.key(1), (2, 11, DIM))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD))["params"]
    return module, params, x_BTD


@pytest.mark.slow
@pytest.mark.parametrize(
    "mixer",
    [
        MemoraConfig(heads=2, chunk=4, rate_rank=None, conv=0, activation="none", gate="none"),
        MemoraConfig(heads=2, chunk=4, simplex="matrix", hidden=5, read="lag", mass=3.0),
        MemoraConfig(heads=2, chunk=4, simplex="outputs", gate="sigmoid", remat="none"),
    ],
)
def test_every_option_trains_all_its_parameters(mixer):
    module, params, x_BTD = started(mixer)

    def loss(params):
        y_BTD, _ = module.apply({"params": params}, x_BTD)
        return jnp.mean(jnp.sin(3 * y_BTD) * jnp.cos(jnp.arange(DIM * 1.0))[None, None])

    grads = jax.jit(jax.grad(loss))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, path


def test_where_it_starts():
    mixer = MemoraConfig(heads=2, initial_rate=0.1, initial_retention=0.9)
    module, params, x_BTD = started(mixer)
    assert params["memory_in"].shape == (2, 16, 64) and params["memory_out"].shape == (
        2,
        64,
        16,
    )
    (y_BTD, _), sown = jax.jit(functools.partial(module.apply, mutable=["stats"]))(
        {"params": params}, x_BTD
    )
    assert 0.1 < np.std(y_BTD) < 3
    assert float(sown["stats"]["eta"][0]) == pytest.approx(0.1, rel=0.05)
    assert float(sown["stats"]["alpha"][0]) == pytest.approx(0.9, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk": 0}, "at least 1"),
        ({"hidden": 0}, "4 times the head size"),
        ({"rate_rank": 0}, "per head"),
        ({"mass": 0}, "mean weight of 1"),
        ({"memory_eps": 0}, "positive"),
        ({"simplex": "rows"}, "'inputs'"),
        ({"initial_retention": 1.0}, "strictly between"),
        ({"initial_rate": 0.5}, "mixer.max_rate 0.25"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        MemoraConfig(**change)
