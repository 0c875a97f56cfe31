"""The self-referential weight matrix as a mixer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import ModelConfig, SRWMConfig
from hope_jax.layers.registry import make_mixer


def started(config, dim, time=3):
    module = make_mixer(ModelConfig(dim=dim, depth=1, mixer=config))
    x_BTD = jax.random.normal(jax.random.key(1), (2, time, dim))
    return module, nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD))["params"], x_BTD


@pytest.mark.parametrize("features", ["none", "softmax"])
def test_a_head_applies_its_matrix_to_its_part_of_the_input(features):
    """Before anything is written, that is all there is."""
    module, params, x_BTD = started(SRWMConfig(heads=2, input_features=features), 16)
    y_BTD, _ = jax.jit(module.apply)({"params": params}, x_BTD)
    x_BHK = x_BTD[:, 0].reshape(2, 2, 8)
    if features == "softmax":
        x_BHK = nn.softmax(x_BHK)
    y_BHK = jnp.einsum("bhk,hkl->bhl", x_BHK, params["memory_y"])
    want_BD = jnp.einsum("bhk,hkd->bd", y_BHK, params["w_out"])
    np.testing.assert_allclose(y_BTD[:, 0], want_BD, rtol=1e-4, atol=1e-5)


def test_initial_matrices_are_those_of_the_published_code():
    config = SRWMConfig(heads=2, query_scale=0.01, beta_mean=-1.0)
    module, params, _ = started(config, 128)
    deviations = {name: float(jnp.std(w)) * 8 for name, w in params.items() if "memory" in name}
    want = {"memory_y": 1, "memory_q": 0.01, "memory_k": 1, "memory_beta": 1}
    assert deviations == pytest.approx(want, rel=0.1)
    assert float(params["memory_beta"].mean()) == pytest.approx(-1, abs=0.05)
    _, state = module.apply({"params": params}, jnp.zeros((3, 0, 128)))
    assert state.memory_BHKO.shape == (3, 2, 64, 3 * 64 + 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk": 0}, "at least 1"),
        ({"input_features": "elu"}, "'softmax'"),
        ({"query_scale": 0.0}, "positive"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        SRWMConfig(**change)


def test_heads_must_fit_the_width():
    with pytest.raises(ValueError, match="model.dim 16"):
        ModelConfig(dim=16, mixer=SRWMConfig(heads=3))
