"""The Continuum Memory System as a module and as pure functions of its levels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import AttentionConfig, CMSConfig, ModelConfig
from hope_jax.layers.continuum import ContinuumMemory, level_mlp


def memory(**cms):
    """The compiled `(params, x) -> y` of a memory, its parameters and some input."""
    config = ModelConfig(
        dim=8, depth=1, mixer=AttentionConfig(heads=2), cms=CMSConfig(hidden=12, **cms)
    )
    module = ContinuumMemory(config)
    x_BTD = jax.random.normal(jax.random.key(0), (2, 3, 8))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(1), x_BTD))["params"]
    return jax.jit(lambda params, x_BTD: module.apply({"params": params}, x_BTD)), params, x_BTD


def test_one_level_is_the_feed_forward_layer_of_a_transformer():
    apply, params, x_BTD = memory(periods=(1,))
    level = params["period_1"]
    normed_BTD = x_BTD / np.sqrt(np.mean(np.square(x_BTD), -1, keepdims=True) + 1e-6)
    gate_BTF = normed_BTD @ level["w_gate"]
    hidden_BTF = gate_BTF / (1 + np.exp(-gate_BTF)) * (normed_BTD @ level["w_in"])
    expected_BTD = x_BTD + hidden_BTF @ level["w_out"]
    y_BTD = apply(params, x_BTD)
    np.testing.assert_allclose(y_BTD, expected_BTD, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["sequential", "nested"])
def test_a_chain_applies_the_fastest_level_first(variant):
    apply, params, x_BTD = memory(periods=(1, 4), variant=variant)
    h_BTD = x_BTD + level_mlp(params["period_1"], x_BTD)
    h_BTD = h_BTD + level_mlp(params["period_4"], h_BTD)
    np.testing.assert_allclose(apply(params, x_BTD), h_BTD, rtol=1e-5, atol=1e-6)


def test_independent_levels_read_the_same_input():
    apply, params, x_BTD = memory(periods=(1, 4), variant="independent")
    mix = params["mix"]
    expected_BTD = (
        x_BTD
        + mix[0] * level_mlp(params["period_1"], x_BTD)
        + mix[1] * level_mlp(params["period_4"], x_BTD)
    )
    np.testing.assert_allclose(apply(params, x_BTD), expected_BTD, rtol=1e-5, atol=1e-6)


def test_gelu_levels_have_no_gate():
    apply, params, x_BTD = memory(periods=(1,), activation="gelu")
    assert "w_gate" not in params["period_1"]
    assert apply(params, x_BTD).shape == x_BTD.shape


def test_a_level_is_updated_through_its_pure_function():
    """A gradient step on one level alone, as in-context updates take it."""
    _, params, x_BTD = memory(periods=(1, 4))

    def loss(level):
        return jnp.sum(jnp.square(level_mlp(level, x_BTD) - 1))

    level = params["period_4"]
    stepped = jax.tree.map(lambda p, g: p - 1e-3 * g, level, jax.grad(loss)(level))
    assert loss(stepped) < loss(level)


def test_widths_add_up():
    assert CMSConfig(periods=(1, 2, 4, 8)).split_hidden(10) == (3, 3, 2, 2)
    assert sum(CMSConfig(periods=(1, 2, 4)).split_hidden(704)) == 704
