"""Mixers with a matrix memory: what each does with what it reads."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import (
    CombaConfig,
    DeltaNetConfig,
    GatedDeltaNetConfig,
    LinearAttentionConfig,
    ModelConfig,
    RetNetConfig,
)
from hope_jax.layers.registry import make_mixer
from hope_jax.layers.retnet import decays

MIXERS = {
    "linear_attention": LinearAttentionConfig(heads=2, chunk=4),
    "retnet": RetNetConfig(heads=2, chunk=4),
    "delta_net": DeltaNetConfig(heads=2, chunk=4),
    "gated_delta_net": GatedDeltaNetConfig(heads=2, chunk=4),
    "comba": CombaConfig(heads=2, chunk=4),
}
OPTIONS = [
    LinearAttentionConfig(heads=2, chunk=4, normaliser="rms", feature_map="relu"),
    LinearAttentionConfig(heads=2, chunk=4, normaliser="rms", feature_map="none"),
    RetNetConfig(heads=2, chunk=4, gate="none", value_expansion=1.5),
    DeltaNetConfig(heads=2, chunk=4, conv=0, gate="silu", retention="learned"),
    CombaConfig(heads=2, chunk=4, gate="none", retention="none", initial_correction=0.02),
]
TIME, DIM = 11, 16


@functools.cache
def started(config):
    """A compiled mixer `(x, state, reset, writes)`, its parameters and some input."""
    module = make_mixer(ModelConfig(dim=DIM, depth=1, mixer=config))
    x_BTD = jax.random.normal(jax.random.key(1), (2, TIME, DIM))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD))["params"]

    @functools.partial(jax.jit, static_argnames="writes")
    def apply(x_BTD, state=None, reset_BT=None, writes=True, params=params):
        return module.apply({"params": params}, x_BTD, state, reset_BT, writes=writes)

    return apply, params, x_BTD


def replaced(config, **changes):
    """Outputs and state of a mixer with other options and the same weights."""
    apply, params, x_BTD = started(config)
    module = make_mixer(
        ModelConfig(dim=DIM, depth=1, mixer=dataclasses.replace(config, **changes))
    )
    return jax.jit(module.apply)({"params": params}, x_BTD)


@pytest.mark.parametrize("config", MIXERS.values(), ids=MIXERS)
def test_an_empty_memory_reads_zero(config):
    apply, _, x_BTD = started(config)
    y_BTD, after = apply(x_BTD, writes=False)
    np.testing.assert_allclose(y_BTD, 0, atol=1e-6)
    assert not np.any(after.memory_BHKV)


@pytest.mark.parametrize("config", OPTIONS, ids=lambda c: c.type)
def test_every_option_trains_all_its_parameters(config):
    apply, params, x_BTD = started(config)

    def loss(params):
        y_BTD, _ = apply(x_BTD, params=params)
        return jnp.mean(jnp.sin(3 * y_BTD) * jnp.cos(jnp.arange(DIM * 1.0))[None, None])

    grads = jax.jit(jax.grad(loss))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, path


def test_linear_attention_averages_values():
    """With the normaliser "sum", weights of all values are positive and sum to one."""
    config = MIXERS["linear_attention"]
    apply, params, x_BTD = started(config)
    same = jnp.broadcast_to(params["w_v"].sum(0, keepdims=True), params["w_v"].shape)
    x_BTD = x_BTD / x_BTD.sum(-1, keepdims=True)  # so that every token has one value
    y_BTD, _ = apply(x_BTD, params={**params, "w_v": same})
    want_D = jnp.einsum("hk,hkd->d", same[0], params["w_out"])
    np.testing.assert_allclose(
        y_BTD, jnp.broadcast_to(want_D, y_BTD.shape), rtol=1e-3, atol=1e-4
    )


def test_a_normaliser_needs_positive_features():
    with pytest.raises(ValueError, match="not positive"):
        LinearAttentionConfig(feature_map="relu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 0}, "at least 1"),
        ({"gate": "gelu"}, "'silu'"),
        ({"rope_theta": 0}, "positive"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        RetNetConfig(**change)


@pytest.mark.parametrize(
    ("mixer", "dim"),
    [(RetNetConfig(heads=2), 18), (RetNetConfig(heads=2, value_expansion=1.3), 16)],
)
def test_heads_must_fit_the_width(mixer, dim):
    with pytest.raises(ValueError, match=f"model.dim {dim}"):
        ModelConfig(dim=dim, mixer=mixer)


def test_retnet_is_written_out():
    """Its memory: keys turned by i theta per token and decayed by gamma (Sun et al. 2023)."""
    config = RetNetConfig(heads=2, chunk=4, gate="none")
    apply, params, x_BTD = started(config)
    _, state = apply(x_BTD)
    x_TD, head, size = np.asarray(x_BTD[0], np.float64), 1, DIM // 2
    w = {n: np.asarray(params[f"w_{n}"], np.float64)[:, head] for n in "kv"}
    turn = np.arange(TIME)[:, None] * 10_000.0 ** (-np.arange(size // 2) / (size // 2))
    k_TK = x_TD @ w["k"]
    complex_TK = (k_TK[:, : size // 2] + 1j * k_TK[:, size // 2 :]) * np.exp(1j * turn)
    k_TK = np.concatenate([complex_TK.real, complex_TK.imag], 1) / size**0.5
    gamma_T = (1 - 2.0 ** (-5 - head)) ** np.arange(TIME - 1, -1, -1)
    want_KV = (gamma_T[:, None] * k_TK).T @ (x_TD @ w["v"])
    np.testing.assert_allclose(state.memory_BHKV[0, head], want_KV, rtol=1e-3, atol=1e-4)


def test_later_heads_of_retnet_forget_more_slowly():
    kept = np.asarray(decays(8)) ** 32
    assert np.all(np.diff(kept) > 0) and kept[0] < 0.4 and kept[-1] > 0.98


def test_gated_delta_net_that_keeps_everything_is_delta_net():
    gated = MIXERS["gated_delta_net"]
    apply, params, x_BTD = started(gated)
    kept = {**params, "log_rate": jnp.full((2,), -jnp.inf)}  # a rate of 0: alpha = 1
    y_BTD, state = apply(x_BTD, params=kept)
    plain = DeltaNetConfig(
        heads=2, chunk=4, key_expansion=0.75, value_expansion=2.0, gate="silu"
    )
    module = make_mixer(ModelConfig(dim=DIM, depth=1, mixer=plain))
    own = jax.eval_shape(lambda: module.init(jax.random.key(0), x_BTD))["params"]
    assert set(params) - set(own) == {"w_alpha", "b_alpha", "log_rate"}
    want_BTD, want = jax.jit(module.apply)({"params": {n: params[n] for n in own}}, x_BTD)
    np.testing.assert_allclose(y_BTD, want_BTD, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.memory_BHKV, want.memory_BHKV, rtol=1e-4, atol=1e-5)
    forgetful_BTD, _ = apply(x_BTD)
    assert np.abs(forgetful_BTD - want_BTD).max() > 0.01


def test_comba_is_gated_delta_net_with_a_scaled_feedback_and_a_corrected_query():
    """With b = 1, D = 0 and alpha = 1 nothing is left of the difference."""
    changes = {"retention": "none", "gate": "silu"}
    comba = dataclasses.replace(MIXERS["comba"], **changes)
    apply, params, x_BTD = started(comba)
    plain = dataclasses.replace(MIXERS["gated_delta_net"], retention="none")
    module = make_mixer(ModelConfig(dim=DIM, depth=1, mixer=plain))
    same = {n: w for n, w in params.items() if n not in ("b_feedback", "correction")}
    want_BTD, _ = jax.jit(module.apply)({"params": same}, x_BTD)

    def difference(feedback, correction):
        gates = {"b_feedback": jnp.full(2, feedback), "correction": jnp.full(2, correction)}
        y_BTD, _ = apply(x_BTD, params={**params, **gates})
        return np.abs(y_BTD - want_BTD).max()

    assert difference(100.0, 0.0) < 1e-5
    assert difference(0.0, 0.0) > 0.01 and difference(100.0, 1.0) > 0.01


def test_retention_starts_where_the_published_models_do():
    """Between exp(-16 * 0.1) and 1 at an input of zero, different for every head."""
    config = GatedDeltaNetConfig(heads=16, key_expansion=1.0)
    module = make_mixer(ModelConfig(dim=64, depth=1, mixer=config))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(3), jnp.zeros((1, 2, 64))))["params"]
    step = np.logaddexp(0, params["b_alpha"])
    assert np.all((0.99e-3 < step) & (step < 0.101)) and len(set(step.tolist())) == 16
    alpha = np.exp(-np.exp(params["log_rate"]) * step)
    assert 0.2 < alpha.min() < 0.98 and alpha.max() < 1


def test_convolutions_end_at_documents_and_reach_over_cuts():
    """The tail of q, k and v is state; at a reset it is forgotten with the memory."""
    apply, _, x_BTD = started(MIXERS["delta_net"])
    _, state = apply(x_BTD[:, :5])
    assert {n: t.shape for n, t in state.tails.items()} == dict.fromkeys("qkv", (2, 3, DIM))
    reset_BT = jnp.zeros((2, 2), bool).at[:, 0].set(True)
    y_BTD, _ = apply(x_BTD[:, 5:7], state, reset_BT)
    alone_BTD, _ = apply(x_BTD[:, 5:7])
    np.testing.assert_allclose(y_BTD, alone_BTD, rtol=1e-4, atol=1e-5)
    on_BTD, _ = apply(x_BTD[:, 5:7], state)
    assert np.abs(on_BTD - alone_BTD).max() > 0.01
