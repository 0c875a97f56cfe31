"""Mamba and Samba: what each does, against transcriptions of their papers."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import (
    CMSConfig,
    MambaConfig,
    ModelConfig,
    SambaConfig,
    SlidingWindowConfig,
)
from hope_jax.layers.block import Block
from hope_jax.layers.continuum import Level
from hope_jax.layers.norm import rms_norm
from hope_jax.layers.registry import make_mixer
from hope_jax.models import (
    abstract_params,
    count_params,
    match_params,
    param_shapes,
)
from hope_jax.optim.model_matrices import model_matrices

TIME, DIM = 11, 16
MAMBA = MambaConfig(chunk=4, state_size=3)
SAMBA = SambaConfig(chunk=4, state_size=3, heads=2, window=4, block=4)


@functools.cache
def started(mixer):
    """A compiled mixer, its parameters and some input."""
    module = make_mixer(ModelConfig(dim=DIM, depth=1, mixer=mixer))
    x_BTD = jax.random.normal(jax.random.key(1), (2, TIME, DIM))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD))["params"]
    return jax.jit(module.apply, static_argnames="writes"), params, x_BTD


def test_mamba_is_its_published_block():
    """Section 3.4 of arXiv:2312.00752 in float64, one row, token by token."""
    apply, params, x_BTD = started(MAMBA)
    keys = jax.random.split(jax.random.key(5), len(params))
    params = {  # so that nothing is at a special value
        name: w + 0.1 * jax.random.normal(key, w.shape)
        for (name, w), key in zip(params.items(), keys, strict=True)
    }
    y_BTD, state = apply({"params": params}, x_BTD)
    p = {name: np.asarray(w, np.float64) for name, w in params.items()}
    silu = lambda x: x / (1 + np.exp(-x))
    x_TD = np.asarray(x_BTD[0], np.float64)
    padded = np.concatenate([np.zeros((3, 2 * DIM)), x_TD @ p["w_expand"]])
    h, want = np.zeros((3, 2 * DIM)), []
    for t in range(TIME):
        u = silu(sum(p["conv"][j] * padded[t + 3 - j] for j in range(4)) + p["conv_bias"])
        low, b, c = np.split(u @ p["w_select"], [1, 4])
        dt = np.log1p(np.exp(low @ p["w_step"] + p["b_step"]))
        h = np.exp(-dt * np.exp(p["log_rate"])) * h + np.outer(b, dt * u)
        y = c @ h + p["skip"] * u
        want.append(y * silu(x_TD[t] @ p["w_expand_gate"]) @ p["w_contract"])
    np.testing.assert_allclose(y_BTD[0], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.memory_BNE[0], h, rtol=1e-4, atol=1e-5)


def test_without_a_convolution():
    """There is no tail then, and every token stands for itself but for the memory."""
    apply, params, x_BTD = started(MambaConfig(chunk=4, state_size=3, conv=0))
    y_BTD, state = apply({"params": params}, x_BTD)
    assert state.tail_BKE is None and "conv" not in params and "conv_bias" not in params
    _, state = apply({"params": params}, x_BTD[:, :6])
    for t in range(6, 8):
        one_BTD, state = apply({"params": params}, x_BTD[:, t : t + 1], state)
        np.testing.assert_allclose(one_BTD[:, 0], y_BTD[:, t], rtol=1e-4, atol=1e-5)


def test_mamba_starts_as_published():
    module = make_mixer(ModelConfig(dim=64, mixer=MambaConfig()))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(3), jnp.zeros((1, 2, 64))))["params"]
    step_E = np.logaddexp(0, params["b_step"])
    assert step_E.shape == (128,) and params["w_step"].shape == (4, 128)
    assert np.all((0.99e-3 < step_E) & (step_E < 0.101)) and step_E.std() > 0.01
    np.testing.assert_allclose(np.exp(params["log_rate"][:, 5]), np.arange(1, 17), rtol=1e-6)


def test_a_block_is_a_group_of_samba():
    """Four layers, each with its own norm and residual, written out from the same weights."""
    config = ModelConfig(dim=DIM, depth=1, mixer=SAMBA, cms=CMSConfig(hidden=24))
    x_BTD = 2 * jax.random.normal(jax.random.key(2), (2, TIME, DIM))
    block = Block(config)
    params = nn.unbox(jax.jit(block.init)(jax.random.key(0), x_BTD, None, None))["params"]
    assert set(params) == {"mixer", "cms"}
    got_BTD, _ = jax.jit(block.apply)({"params": params}, x_BTD, None, None)

    def layer(mixer, name, x_BTD):
        module = make_mixer(ModelConfig(dim=DIM, mixer=mixer))
        normed_BTD = rms_norm(x_BTD, p[f"{name}_norm"]["scale"], config.norm_eps)
        return x_BTD + jax.jit(module.apply)({"params": p[name]}, normed_BTD)[0]

    def mlp(params, x_BTD):
        return x_BTD + Level(config, 24).apply({"params": params}, x_BTD)

    p = params["mixer"]
    x_BTD = mlp(p["mlp"], layer(MAMBA, "mamba", x_BTD))
    window = SlidingWindowConfig(heads=2, window=4, block=4)
    want_BTD = mlp(params["cms"]["period_1"], layer(window, "attention", x_BTD))
    np.testing.assert_allclose(got_BTD, want_BTD, rtol=1e-4, atol=1e-5)


def test_other_mixers_get_what_is_normalised():
    """And have the norm in front that Samba does not need."""
    names = {path.split("/")[1] for path in param_shapes(ModelConfig(mixer=MAMBA))}
    assert "mixer_norm" in names
    samba = {path.split("/")[1] for path in param_shapes(ModelConfig(mixer=SAMBA))}
    assert names - samba == {"mixer_norm"}


@pytest.mark.parametrize("target", [900_000, 2_345_678])
def test_the_budget_of_samba_is_met_by_both_feed_forward_layers(target):
    config = ModelConfig(dim=128, mixer=SambaConfig())
    matched = match_params(config, target)
    assert abs(count_params(matched).total - target) <= 0.01 * target
    shapes = param_shapes(matched)
    for path in ("blocks/mixer/mlp/w_in", "blocks/cms/period_1/w_in"):
        assert shapes[path].shape == (4, 128, matched.cms.hidden)


def test_matrices_inside_of_samba_are_known():
    params = abstract_params(ModelConfig(dim=DIM, mixer=SAMBA))
    matrices = model_matrices(params)["blocks"]["mixer"]
    known = lambda tree: {name for name, dims in tree.items() if dims is not None}
    attention = {"w_query", "w_key", "w_value", "w_out"}
    assert known(matrices["attention"]) == attention
    assert known(matrices["mlp"]) == {"w_in", "w_gate", "w_out"}
    mamba = {"w_expand", "w_expand_gate", "w_select", "w_step", "w_contract"}
    assert known(matrices["mamba"]) == mamba
    alone = abstract_params(ModelConfig(dim=DIM, mixer=MAMBA))
    assert known(model_matrices(alone)["blocks"]["mixer"]) == mamba


def test_weights_into_the_stream_are_smaller_where_more_are_added():
    """Four additions in a block of Samba, two in one of Mamba."""
    deviation = {}
    for mixer in (MAMBA, SambaConfig(heads=2)):
        module = make_mixer(ModelConfig(dim=64, depth=1, mixer=mixer))
        params = nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 64))))[
            "params"
        ]
        deviation[mixer.type] = float(params.get("mamba", params)["w_contract"].std())
    assert deviation["samba"] == pytest.approx(deviation["mamba"] / 2**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state_size": 0}, "at least 1"),
        ({"conv": -1}, "0 \\(off\\)"),
        ({"step_rank": 0}, "dim / 16"),
        ({"min_step": 0.5}, "in this order"),
        ({"window": 0}, "mixer.window"),
        ({"rope_theta": 0}, "positive"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        SambaConfig(**change)


def test_channels_and_heads_must_fit_the_width():
    with pytest.raises(ValueError, match="make it whole"):
        ModelConfig(dim=15, mixer=MambaConfig(expand=1.5))
    with pytest.raises(ValueError, match="even whole head size"):
        ModelConfig(dim=18, mixer=SambaConfig())
