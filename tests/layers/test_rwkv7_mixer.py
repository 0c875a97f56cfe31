"""RWKV-7 as a mixer is what was published, but for what its docstring names."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import ModelConfig, RWKV7Config
from hope_jax.layers.registry import make_mixer

TIME, DIM, HEADS = 9, 16, 2
CONFIG = RWKV7Config(heads=HEADS, chunk=4, decay_rank=3, rate_rank=3, gate_rank=5)


@functools.cache
def started(dim=DIM, config=CONFIG):
    """The mixer, its parameters, away from their initial values, and input."""
    module = make_mixer(ModelConfig(dim=dim, depth=1, mixer=config))
    x_BTD = jax.random.normal(jax.random.key(1), (2, TIME, dim))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD))["params"]
    draw = np.random.default_rng(2).normal
    moved = jax.tree.map(lambda w: w + 0.2 * draw(size=w.shape).astype("float32"), params)
    return module, params, moved, x_BTD


def published(x_TD, p):
    """One sequence, token by token, as in the paper (float64, matrices `[V, K]`)."""
    p = {name: np.asarray(w, np.float64) for name, w in p.items()}
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    state, before, outputs = np.zeros((HEADS, DIM // HEADS, DIM // HEADS)), 0 * x_TD[0], []
    for x in x_TD:
        mixed = {
            role: x + (before - x) * p[f"shift_{role}"]
            for role in ("r", "decay", "k", "v", "rate", "gate")
        }
        r, k, v = (np.einsum("d,dhk->hk", mixed[n], p[f"w_{n}"]) for n in "rkv")
        first = {n: mixed[n] @ p[f"w_{n}_in"] for n in ("decay", "rate", "gate")}
        second = lambda role, hidden: np.einsum("z,zhk->hk", hidden, p[f"w_{role}_out"])
        decay = p["decay"] + second("decay", np.tanh(first["decay"]))
        w = np.exp(-math.exp(-0.5) * sigmoid(decay))
        a = sigmoid(p["rate"] + second("rate", first["rate"]))
        g = second("gate", sigmoid(first["gate"]))
        kappa = k * p["removal_scale"]
        kappa /= np.linalg.norm(kappa, axis=-1, keepdims=True)
        k = k * (1 + (a - 1) * p["rate_scale"])
        y = np.zeros((HEADS, DIM // HEADS))
        for h in range(HEADS):
            transition = np.diag(w[h]) - np.outer(kappa[h], a[h] * kappa[h])
            state[h] = state[h] @ transition + np.outer(v[h], k[h])
            y[h] = state[h] @ r[h]
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(
            y.var(-1, keepdims=True) + 1e-5 * (DIM // HEADS)
        )
        y = y * p["read_norm_scale"] + p["read_norm_bias"]
        y = y + np.sum(r * k * p["bonus"], -1, keepdims=True) * v
        outputs.append(np.einsum("hv,hvd->d", y * g, p["w_out"]))
        before = x
    return np.stack(outputs), np.swapaxes(state, 1, 2)


def test_the_layer_is_the_published_one():
    module, _, params, x_BTD = started()
    y_BTD, state = jax.jit(module.apply)({"params": params}, x_BTD)
    for row in range(2):
        want_TD, memory = published(np.asarray(x_BTD[row], np.float64), params)
        np.testing.assert_allclose(y_BTD[row], want_TD, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(state.memory_BHKV[row], memory, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(state.last_BD, x_BTD[:, -1])


def test_the_first_token_of_a_document_has_none_before_it():
    """The memory and the token shift are forgotten, and a cut before it changes nothing."""
    module, _, params, x_BTD = started()
    apply = jax.jit(module.apply)
    reset_BT = jnp.zeros((2, TIME), bool).at[:, 5].set(True)
    y_BTD, _ = apply({"params": params}, x_BTD, None, reset_BT)
    alone_BTD, _ = apply({"params": params}, jnp.roll(x_BTD, -5, axis=1))
    np.testing.assert_allclose(y_BTD[:, 5:], alone_BTD[:, :4], rtol=1e-4, atol=1e-5)


def test_without_writes_only_the_bonus_passes_an_empty_memory():
    module, _, params, x_BTD = started()
    read = lambda params: jax.jit(functools.partial(module.apply, writes=False))(
        {"params": params}, x_BTD
    )
    y_BTD, state = read(params)
    assert not np.any(state.memory_BHKV) and np.abs(y_BTD).max() > 1e-3
    silent = {"bonus": jnp.zeros_like(params["bonus"])}
    silent |= {"read_norm_bias": jnp.zeros_like(params["read_norm_bias"])}
    assert not np.any(read(params | silent)[0])


def test_initial_values():
    """Channels forget at many speeds, half of what a key reads is removed, outputs are sane."""
    config = RWKV7Config(heads=4)
    module, params, _, _ = started(256, config)
    decay = np.exp(-math.exp(-0.5) / (1 + np.exp(-np.asarray(params["decay"]))))
    assert decay.min() < 0.6 and decay.max() > 0.999 and np.median(decay) > 0.95
    assert np.all(np.abs(params["rate"]) < 0.8)
    assert np.all((params["shift_r"] >= 0) & (params["shift_r"] <= 1))
    shapes = {n: w.shape for n, w in params.items() if n.endswith(("_in", "_out"))}
    assert shapes["w_decay_in"] == (256, 32) and shapes["w_gate_out"] == (64, 4, 64)
    x_BTD = jax.random.normal(jax.random.key(3), (1, 64, 256))
    y_BTD, _ = jax.jit(module.apply)({"params": params}, x_BTD)
    assert 0.05 < float(jnp.std(y_BTD)) < 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 0}, "at least 1"),
        ({"chunk": 256}, "at most 128"),
        ({"gate_rank": 0}, "None"),
        ({"remat": "all"}, "'sqrt'"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        RWKV7Config(**change)


def test_heads_must_fit_the_width():
    with pytest.raises(ValueError, match="model.dim 16"):
        ModelConfig(dim=16, mixer=RWKV7Config(heads=3))
