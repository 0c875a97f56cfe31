"""The attention mixer's cache: growing, reserved, full, and per row."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import AttentionConfig, ModelConfig, override
from hope_jax.layers.attention import Attention, reserve

TIME = 9


@pytest.fixture(scope="module")
def mixer():
    """Compiled `(x, state, reset) -> (y, state)`, inputs and their outputs in one read."""
    module = Attention(ModelConfig(dim=8, depth=1, mixer=AttentionConfig(heads=2, block=4)))
    x_BTD = jax.random.normal(jax.random.key(0), (2, TIME, 8))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(1), x_BTD))
    apply = jax.jit(lambda x, state, reset: module.apply(params, x, state, reset))
    return apply, x_BTD, apply(x_BTD, None, None)[0]


def test_decoding_in_a_reserved_cache_keeps_its_shapes(mixer):
    apply, x_BTD, whole_BTD = mixer
    _, state = apply(x_BTD[:, :5], None, None)
    state = reserve(state, 4)
    assert state.capacity == TIME
    for t in range(5, TIME):
        y_BTD, state = apply(x_BTD[:, t : t + 1], state, None)
        assert state.capacity == TIME
        np.testing.assert_allclose(y_BTD[:, 0], whole_BTD[:, t], rtol=1e-5, atol=1e-6)
    assert state.length_B.tolist() == [TIME, TIME]


def test_room_is_kept_when_there_is_enough(mixer):
    apply, x_BTD, _ = mixer
    state = reserve(apply(x_BTD[:, :5], None, None)[1], 10)
    assert reserve(state, 10).capacity == 15
    assert reserve(state, 12).capacity == 17


def test_reading_past_the_capacity_is_not_silent(mixer):
    apply, x_BTD, _ = mixer
    state = reserve(apply(x_BTD[:, :5], None, None)[1], 0)
    assert np.isnan(apply(x_BTD[:, 5:6], state, None)[0]).all()


def test_rows_may_have_read_different_lengths(mixer):
    """Rows of different streams are joined and read on together."""
    apply, x_BTD, whole_BTD = mixer
    rows = []
    for row, length in ((0, 3), (1, 6)):
        state = apply(x_BTD[:, :length], None, None)[1]
        state = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], state)
        rows.append(reserve(state, TIME - length))
    state = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)
    y_BTD, _ = apply(jnp.stack([x_BTD[0, 3:5], x_BTD[1, 6:8]]), state, None)
    np.testing.assert_allclose(y_BTD[0], whole_BTD[0, 3:5], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y_BTD[1], whole_BTD[1, 6:8], rtol=1e-5, atol=1e-6)


def test_a_reset_hides_the_cache(mixer):
    apply, x_BTD, _ = mixer
    state = apply(x_BTD[:, :5], None, None)[1]
    reset_BT = jnp.array([[True, False], [False, False]])
    y_BTD, after = apply(x_BTD[:, 5:7], state, reset_BT)
    alone_BTD, _ = apply(x_BTD[:, 5:7], None, None)
    np.testing.assert_allclose(y_BTD[0], alone_BTD[0], rtol=1e-4, atol=1e-5)
    assert after.first_B.tolist() == [5, 0]
    assert after.length_B.tolist() == [7, 7]


def test_shared_keys_and_values_are_those_of_all_heads_of_a_group():
    """Value and gradient, of texts and of one token after a cache."""
    shared = ModelConfig(dim=8, depth=1, mixer=AttentionConfig(heads=4, kv_heads=2, block=4))
    plain = override(shared, {"mixer.kv_heads": None})
    x_BTD = jax.random.normal(jax.random.key(0), (2, TIME, 8))
    params = nn.unbox(jax.jit(Attention(shared).init)(jax.random.key(1), x_BTD))["params"]
    assert params["w_key"].shape == (8, 2, 2)

    def spread(params):
        both = {k: jnp.repeat(params[k], 2, axis=1) for k in ("w_key", "w_value")}
        return params | both

    def read(config, params):
        module = Attention(config)
        y_BTD, state = module.apply({"params": params}, x_BTD[:, :-1])
        last_BTD, state = module.apply({"params": params}, x_BTD[:, -1:], state)
        return jnp.concatenate([y_BTD, last_BTD], axis=1), state

    def loss(params, config, change):
        return jnp.sum(read(config, change(params))[0] ** 2)

    y_BTD, state = jax.jit(lambda p: read(shared, p))(params)
    assert state.keys_BSHK.shape == (2, TIME, 2, 2)
    wanted_BTD, _ = jax.jit(lambda p: read(plain, spread(p)))(params)
    np.testing.assert_allclose(y_BTD, wanted_BTD, rtol=1e-5, atol=1e-6)
    grads = jax.jit(jax.grad(lambda p: loss(p, shared, lambda p: p)))(params)
    wanted = jax.jit(jax.grad(lambda p: loss(p, plain, spread)))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, wanted
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_heads": 3}, "4 is not a multiple of mixer.kv_heads 3"),
        ({"kv_heads": 0}, "use None .as many as of queries. or at least 1"),
        ({"rope_scaling.factor": 0.5}, "rope_scaling.factor is 0.5"),
        ({"rope_scaling.low": 4.0}, "must be positive and below"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        override(AttentionConfig(heads=4), changes)
