"""Titans and its hybrids with attention, written out token by token in NumPy."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import (
    DLAConfig,
    ModelConfig,
    TitansConfig,
    TitansMACConfig,
    TitansMAGConfig,
    TitansMALConfig,
)
from hope_jax.layers.registry import make_mixer

TIME, DIM, HEADS = 10, 16, 2
SIZE, EPS = DIM // HEADS, 1e-6


def started(config, time=TIME):
    """A mixer's output for some input, and its parameters, float64, none of them special."""
    module = make_mixer(ModelConfig(dim=DIM, depth=1, mixer=config, norm_eps=EPS))
    x_BTD = jax.random.normal(jax.random.key(1), (1, time, DIM))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD))["params"]
    names = jax.random.split(jax.random.key(2), len(params))
    params = {
        name: value + 0.2 * jax.random.normal(key, value.shape)
        for (name, value), key in zip(params.items(), names, strict=True)
    }
    y_BTD, _ = jax.jit(module.apply)({"params": params}, x_BTD)
    as_f64 = lambda x: np.asarray(x, np.float64)
    return jax.tree.map(as_f64, (y_BTD[0], params, x_BTD[0]))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def unit(x):
    return x / np.sqrt(np.sum(x * x, -1, keepdims=True) + 1e-6)


def rms(x):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + EPS)


def heads(x, w):
    return np.einsum("...d,dhk->...hk", x, w)


def rotate(x_HK, place):
    turn = place * 10_000.0 ** (-np.arange(SIZE // 2) / (SIZE // 2))
    z = (x_HK[:, : SIZE // 2] + 1j * x_HK[:, SIZE // 2 :]) * np.exp(1j * turn)
    return np.concatenate([z.real, z.imag], 1)


def gelu(x):
    return x * sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))


class Memory:
    """Two layers per head; forgetting takes them back to their initial weights."""

    def __init__(self, params, config):
        self.params, self.config = params, config
        self.initial = [params["memory_0"], params["memory_1"]]
        self.now = self.start = self.initial
        self.surprise = [np.zeros_like(w) for w in self.initial]

    def __call__(self, weights, x_HK):
        hidden = gelu(np.einsum("hk,hkf->hf", x_HK, weights[0]))
        return np.einsum("hf,hfk->hk", hidden, weights[1])

    def query(self, x_D):
        return unit(silu(heads(x_D, self.params["w_q"])))

    def write(self, x_D):
        p, limit = self.params, self.config.rate_limit
        k, v = (unit(silu(heads(x_D, p[f"w_{role}"]))) for role in "kv")
        gate = lambda name: sigmoid(x_D @ p[f"w_{name}"] + p[f"b_{name}"])
        keep, eta = gate("retention"), gate("momentum")
        theta = limit * gate("rate") * (1 - eta)
        w_in, w_out = self.start
        pre = np.einsum("hk,hkf->hf", k, w_in)
        error = np.einsum("hf,hfk->hk", gelu(pre), w_out) - v
        slope = (gelu(pre + 1e-5) - gelu(pre - 1e-5)) / 2e-5
        back = np.einsum("hk,hfk->hf", error, w_out) * slope
        grads = k[:, :, None] * back[:, None], gelu(pre)[:, :, None] * error[:, None]
        by = lambda gate_H: gate_H[:, None, None]
        self.surprise = [
            by(eta) * s - by(theta) * g for s, g in zip(self.surprise, grads, strict=True)
        ]
        self.now = [
            by(keep) * w + by(1 - keep) * w0 + s
            for w, w0, s in zip(self.now, self.initial, self.surprise, strict=True)
        ]


def softmax(query_HK, plain_HK, keys, values, params):
    """Of one token over learned tokens and the keys at hand, head by head."""
    learned = [heads(p, params["w_key"]) for p in params["persistent"]]
    scores = [np.sum(plain_HK * k, -1) for k in learned]
    scores += [np.sum(query_HK * k, -1) for k in keys]
    values = [heads(p, params["w_value"]) for p in params["persistent"]] + values
    weights = np.exp(np.stack(scores) / math.sqrt(SIZE))
    return np.einsum("sh,shk->hk", weights / weights.sum(0), np.stack(values))


def over_window(x_TD, params, window):
    keys = [rotate(heads(x, params["w_key"]), t) for t, x in enumerate(x_TD)]
    values = [heads(x, params["w_value"]) for x in x_TD]
    out = []
    for t, x_D in enumerate(x_TD):
        q, near = heads(x_D, params["w_query"]), slice(max(0, t + 1 - window), t + 1)
        out.append(softmax(rotate(q, t), q, keys[near], values[near], params))
    return np.stack(out)


def long_term(x_TD, params, config):
    memory, reads = Memory(params, config), []
    for t, x_D in enumerate(x_TD):
        if t % config.chunk == 0:
            memory.start = memory.now
        memory.write(x_D)
        reads.append(memory(memory.now, memory.query(x_D)))
    return np.stack(reads)


def combined(y_THK, m_THK, params):
    gate = silu(rms(m_THK) * params["read_norm"])
    return np.einsum(
        "thk,hkd->td", rms(y_THK) * params["attention_norm"] * gate, params["w_out"]
    )


def gated(x_TD, params, config, w_out):
    read = rms(long_term(x_TD, params, config)) * params["read_norm"]
    return np.einsum("thk,hkd->td", read * silu(heads(x_TD, params["w_gate"])), w_out)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_titans_is_written_out():
    config = TitansConfig(heads=HEADS, chunk=4, conv=0)
    y_TD, params, x_TD = started(config)
    close(y_TD, gated(x_TD, params, config, params["w_out"]))


def test_memory_as_a_gate_is_written_out():
    config = TitansMAGConfig(heads=HEADS, chunk=4, conv=0, window=3, persistent=2)
    y_TD, params, x_TD = started(config)
    y_THK = over_window(x_TD, params, 3)
    close(y_TD, combined(y_THK, long_term(x_TD, params, config), params))


def test_memory_as_a_layer_is_written_out():
    config = TitansMALConfig(heads=HEADS, chunk=4, conv=0, window=3, persistent=2)
    y_TD, params, x_TD = started(config)
    inner = rms(x_TD + gated(x_TD, params, config, params["w_memory_out"]))
    y_THK = over_window(inner * params["inner_norm"], params, 3)
    close(y_TD, np.einsum("thk,hkd->td", y_THK, params["w_out"]))


def test_memory_as_context_is_written_out():
    """A token sees what was retrieved for itself and before, at the segment's start."""
    config = TitansMACConfig(heads=HEADS, chunk=4, conv=0, persistent=2)
    y_TD, params, x_TD = started(config)
    memory, ys, ms = Memory(params, config), [], []
    for t, x_D in enumerate(x_TD):
        place = t % config.chunk
        if place == 0:
            memory.start, keys, values = memory.now, [], []
        known = rms(memory(memory.start, memory.query(x_D))) * params["context_norm"]
        for z_D in (known.reshape(DIM), x_D):
            keys.append(rotate(heads(z_D, params["w_key"]), place))
            values.append(heads(z_D, params["w_value"]))
        q = heads(x_D, params["w_query"])
        ys.append(softmax(rotate(q, place), q, keys, values, params))
        memory.write(ys[-1].reshape(DIM))
        ms.append(memory(memory.now, memory.query(ys[-1].reshape(DIM))))
    close(y_TD, combined(np.stack(ys), np.stack(ms), params))


@pytest.mark.parametrize("config", [TitansConfig(heads=HEADS), DLAConfig(heads=HEADS)])
def test_one_token_again_and_again_does_not_overshoot(config):
    """The worst for gradients at the chunk's start, here without any forgetting.

    Loss of squares: the value is learnt and nothing grows. Dot products have no minimum, but
    grow no faster than the tokens are counted.
    """
    module = make_mixer(ModelConfig(dim=DIM, depth=1, mixer=config))
    time = 8 * config.chunk
    x_BTD = jnp.broadcast_to(jax.random.normal(jax.random.key(3), (1, 1, DIM)), (1, time, DIM))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD[:, :1]))["params"]
    params |= {"b_retention": jnp.full(HEADS, 9.0), "b_rate": jnp.full(HEADS, 2.0)}
    if "b_momentum" in params:
        params["b_momentum"] = jnp.full(HEADS, 2.0)

    def loss(params):
        y_BTD, state = module.apply({"params": params}, x_BTD)
        return jnp.mean(y_BTD[:, -1] ** 2), state.memory.weights.running

    (_, weights), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    sizes = [
        float(jnp.linalg.norm(w) / jnp.linalg.norm(params[f"memory_{i}"]))
        for i, w in enumerate(weights)
    ]
    assert max(sizes) < (2 if config.type == "titans" else time * config.rate_limit)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) < 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "at least 1"),
        ({"persistent": 0}, "at least 1"),
        ({"memory_gate": "none"}, "'silu'"),
        ({"initial_rate": 0.5, "chunk": 8}, "between 0 and"),
        ({"initial_momentum": 1.0}, "strictly between"),
        ({"rope_theta": 0}, "positive"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        TitansMACConfig(**change)


@pytest.mark.parametrize("config", [TitansMACConfig, TitansMAGConfig, TitansMALConfig])
def test_heads_of_attention_must_be_even(config):
    with pytest.raises(ValueError, match="model.dim 18"):
        ModelConfig(dim=18, mixer=config(heads=2))
