"""The LSTM as a mixer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import LSTMConfig, ModelConfig
from hope_jax.layers.registry import make_mixer

DIM = 16


def started(config, dim=DIM, time=7):
    module = make_mixer(ModelConfig(dim=dim, depth=1, mixer=config))
    x_BTD = jax.random.normal(jax.random.key(1), (2, time, dim))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD))["params"]
    return module, params, x_BTD


def test_one_head_is_the_cell_of_flax():
    """Which has one weight and one bias for each gate."""
    module, params, x_BTD = started(LSTMConfig())
    y_BTD, state = jax.jit(module.apply)({"params": params}, x_BTD)
    cell = nn.RNN(nn.OptimizedLSTMCell(DIM), return_carry=True)
    theirs = {}
    for index, gate in enumerate("ifgo"):
        theirs[f"i{gate}"] = {"kernel": params["w_input"][:, 0, index]}
        theirs[f"h{gate}"] = {
            "kernel": params["w_recurrent"][0, :, index],
            "bias": params["b_gates"][0, index],
        }
    (c_BK, h_BK), h_BTK = jax.jit(cell.apply)({"params": {"cell": theirs}}, x_BTD)
    np.testing.assert_allclose(y_BTD, h_BTK @ params["w_out"][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.h_BHK[:, 0], h_BK, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.c_BHK[:, 0], c_BK, rtol=1e-4, atol=1e-5)


def test_heads_are_apart():
    """A unit hears the units of its own head."""
    module, params, x_BTD = started(LSTMConfig(heads=2, hidden=8))
    assert params["w_recurrent"].shape == (2, 4, 4, 4)
    _, state = jax.jit(module.apply)({"params": params}, x_BTD)
    other = state.replace(h_BHK=state.h_BHK.at[:, 0].add(1.0))
    apply = jax.jit(module.apply)
    ends = [apply({"params": params}, x_BTD[:, :1], start)[1].h_BHK for start in (state, other)]
    assert np.abs(ends[0][:, 0] - ends[1][:, 0]).max() > 0.01
    np.testing.assert_allclose(ends[0][:, 1], ends[1][:, 1], atol=1e-6)


def test_forget_gates_start_open():
    _, params, _ = started(LSTMConfig(forget_bias=2.0))
    np.testing.assert_array_equal(params["b_gates"].max((0, 2)), [0, 2, 0, 0])
    np.testing.assert_array_equal(params["b_gates"].min((0, 2)), [0, 2, 0, 0])


def test_reading_without_writing_goes_on():
    """It has no memory that learns, so there is nothing to leave alone."""
    module, params, x_BTD = started(LSTMConfig())
    reads = [
        module.apply({"params": params}, x_BTD, writes=writes)[1].h_BHK
        for writes in (True, False)
    ]
    np.testing.assert_array_equal(*reads)
    assert jnp.any(reads[0] != 0)


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="at least 1"):
        LSTMConfig(hidden=0)
    with pytest.raises(ValueError, match="12 units"):
        ModelConfig(dim=16, mixer=LSTMConfig(heads=8, hidden=12))
