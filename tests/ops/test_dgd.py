"""The closed form of a chunk of writes equals stepping the rule token by token."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.ops.dgd import (
    Gates,
    apply_writes,
    chunk_gates,
    dgd_step,
    read_running,
    solve_writes,
)
from hope_jax.ops.own_gradient import plain_gradients

K, Z = 6, 5


def problem(seed, size, *, momentum, retention="random", kind="random", max_rate=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, K))
    if kind == "identical":
        x[:] = x[:1]
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    alpha = {
        "random": rng.uniform(size=size),
        "zero": np.zeros(size),
        "one": np.ones(size),
        "extremes": rng.integers(0, 2, size=size).astype(float),
    }[retention]
    gates = Gates(
        eta=rng.uniform(0, max_rate, size=size),
        alpha=alpha,
        mu=rng.uniform(size=size) if momentum else None,
        valid=rng.uniform(size=size) < 0.8,
    )
    arrays = dict(
        w=rng.normal(size=(K, Z)),
        s=rng.normal(size=(K, Z)) if momentum else None,
        w0=rng.normal(size=(K, Z)),
        x=x,
        g=rng.normal(size=(size, Z)),
        q=rng.normal(size=(size, K)),
    )
    as_f32 = lambda a: jnp.asarray(a, a.dtype if a.dtype == bool else np.float32)
    reset = jnp.asarray(rng.uniform(size=size) < 0.15)
    return jax.tree.map(as_f32, arrays), jax.tree.map(as_f32, gates), reset


def by_token(a, gates, reset, rule, read_after=False):
    w, s, reads = a["w"], a["s"], []
    for t in range(a["x"].shape[0]):
        if reset is not None:
            w = jnp.where(reset[t], a["w0"], w)
            s = None if s is None else jnp.where(reset[t], 0.0, s)
        before = w
        token = jax.tree.map(lambda v, t=t: v[t], gates)
        w, s = dgd_step(w, s, a["x"][t], a["g"][t], token, rule)
        reads.append(a["q"][t] @ (w if read_after else before))
    return jnp.stack(reads), w, s


@functools.partial(jax.jit, static_argnames=("rule", "read_after"))
def in_one(a, gates, reset, rule, read_after=False):
    products = chunk_gates(gates, reset, read_after=read_after)

    def start(x):
        read = x @ a["w"]
        if reset is None:
            return read
        return jnp.where(products.fresh_C[:, None], x @ a["w0"], read)

    momentum = lambda x: None if a["s"] is None else x @ a["s"]
    writes = solve_writes(a["x"], a["g"], start(a["x"]), momentum(a["x"]), products, rule)
    reads = read_running(a["q"], start(a["q"]), momentum(a["q"]), writes, products)
    return reads, *apply_writes(a["w"], a["s"], a["w0"], writes, products)


def close(got, want, tolerance=1e-5):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = float(jnp.abs(w).max()) + 1e-6
        np.testing.assert_allclose(g, w, atol=tolerance * scale, rtol=0)


@hypothesis.given(
    seed=st.integers(0, 2**16),
    size=st.sampled_from([1, 3, 16]),
    momentum=st.booleans(),
    resets=st.booleans(),
    rule=st.sampled_from(["dgd", "gd", "gd after"]),
    retention=st.sampled_from(["random", "zero", "one", "extremes"]),
    kind=st.sampled_from(["random", "identical"]),
)
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
def test_chunk_equals_tokens(seed, size, momentum, resets, rule, retention, kind):
    a, gates, reset = problem(seed, size, momentum=momentum, retention=retention, kind=kind)
    how = (reset if resets else None, *({"gd after": ("gd", True)}.get(rule, (rule, False))))
    close(in_one(a, gates, *how), by_token(a, gates, *how))


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("kind", ["random", "identical"])
@pytest.mark.parametrize("momentum", [False, True])
def test_long_chunks(size, kind, momentum):
    a, gates, _ = problem(3, size, momentum=momentum, retention="random", kind=kind)
    want = jax.jit(lambda a, g: scan_tokens(a, g))(a, gates)
    close(in_one(a, gates, None, "dgd"), want)


def scan_tokens(a, gates):
    def step(carry, token):
        w, s = carry
        x, g, q, gates = token
        new = dgd_step(w, s, x, g, gates)
        return new, q @ w

    (w, s), reads = jax.lax.scan(step, (a["w"], a["s"]), (a["x"], a["g"], a["q"], gates))
    return reads, w, s


@pytest.mark.parametrize("retention", ["random", "zero", "one"])
@pytest.mark.parametrize("momentum", [False, True])
def test_gradients_agree(momentum, retention):
    a, gates, reset = problem(5, 12, momentum=momentum, retention=retention)

    def loss(form):
        def value(a, eta, alpha):
            out = form(a, gates.replace(eta=eta, alpha=alpha), reset, "dgd")
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(out))

        return jax.jit(jax.grad(value, (0, 1, 2)))(a, gates.eta, gates.alpha)

    got, want = loss(in_one), loss(by_token)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(got))
    close(got, want)


def test_one_step_is_eq_88():
    a, gates, _ = problem(0, 1, momentum=False)
    gates = gates.replace(valid=None)
    w, _ = dgd_step(a["w"], None, a["x"][0], a["g"][0], jax.tree.map(lambda v: v[0], gates))
    x, g, eta, alpha = a["x"][0], a["g"][0], gates.eta[0], gates.alpha[0]
    # The paper writes M k with M = W^T.
    want = a["w"].T @ (alpha * jnp.eye(K) - eta * jnp.outer(x, x)) - eta * jnp.outer(g, x)
    np.testing.assert_allclose(w.T, want, atol=1e-6)


def test_exact_proximal_step():
    """Eq. 56 in closed form: the printed Eq. 57 with eta / (1 + eta |x|^2)."""
    rng = np.random.default_rng(0)
    w, x, u, eta = rng.normal(size=(K, Z)), rng.normal(size=K), rng.normal(size=Z), 0.7
    # argmin 1/2 |x W - u|^2 + 1/(2 eta) |W - W_t|^2
    want = np.linalg.solve(np.outer(x, x) + np.eye(K) / eta, np.outer(x, u) + w / eta)
    length = np.linalg.norm(x)
    rate = eta * length**2 / (1 + eta * length**2)
    f32 = lambda v: jnp.asarray(v, jnp.float32)
    got, _ = dgd_step(
        f32(w), None, f32(x / length), f32(-u / length), Gates(f32(rate), f32(1.0))
    )
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_gradient_of_what_rows_decay_to(rows):
    rng = np.random.default_rng(rows)
    array = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    share = lambda: jnp.asarray(rng.uniform(size=(rows, 2, 1, 4)), jnp.float32)
    w, toward, x, g = array(rows, 2, 3, K, Z), array(1, 2, 3, K, Z), array(K), array(Z)
    eta, alpha = share(), share()

    def loss(w, toward, eta, alpha):
        gates = chunk_gates(Gates(eta, alpha))
        inputs = jnp.broadcast_to(x, (rows, 2, 3, 4, K))
        gradients = jnp.broadcast_to(g, (rows, 2, 3, 4, Z))
        read, toward_read = inputs @ w, inputs @ toward
        writes = solve_writes(inputs, gradients, read, None, gates, "dgd", toward_read)
        return jnp.sum(jnp.sin(apply_writes(w, None, None, writes, gates, toward)[0]))

    gradient = jax.jit(jax.grad(loss, (0, 1, 2, 3)))
    got = gradient(w, toward, eta, alpha)
    with plain_gradients():
        close(got, jax.jit(jax.grad(lambda *a: loss(*a), (0, 1, 2, 3)))(w, toward, eta, alpha))
