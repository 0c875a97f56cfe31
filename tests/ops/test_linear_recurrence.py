"""Outer-product memories: by chunk, by token and in pieces are one function."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrences import check_causality, check_nothing_crosses_a_reset, close

from hope_jax.ops.dgd import Gates, dgd_step
from hope_jax.ops.linear_recurrence import (
    Tokens,
    empty_memory,
    gated,
    read_by_chunk,
    read_by_token,
    step,
)
from hope_jax.ops.memory import Memories, MemorySpec
from hope_jax.ops.self_modifying import Group, Inputs, SelfModifyingSpec, read_and_write

B, T, H, K, V = 2, 13, 2, 4, 3
RULES = ("linear", "retention", "delta", "gated_delta", "comba")
RETENTIONS = ("random", "zero", "one", "extremes")


def problem(rule, seed=0, time=T, keys="random", retention="random", max_beta=1.0):
    """Tokens of one rule, a memory that is not empty, and resets inside chunks."""
    rng = np.random.default_rng(seed)
    k = rng.normal(size=(B, time, H, K))
    if keys == "identical":
        k[:] = k[:, :1]
    if keys == "alternating":
        k[:] = k[:, :1] * (-1.0) ** np.arange(time)[None, :, None, None]
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    gates = (B, time, H)
    alpha = {
        "random": rng.uniform(size=gates),
        "zero": np.zeros(gates),
        "one": np.ones(gates),
        "extremes": rng.integers(0, 2, gates).astype(float),
    }[retention]
    if rule == "retention":
        alpha = np.broadcast_to(1 - 2.0 ** (-1 - np.arange(H)), gates)
    beta = max_beta * rng.uniform(0.5, 1, size=gates)
    alpha, beta, removal = {
        "linear": (None, None, None),
        "retention": (alpha, None, None),
        "delta": (None, beta, beta),
        "gated_delta": (alpha, beta, alpha * beta),
        "comba": (alpha, beta, 0.7 * beta),
    }[rule]
    q, v = rng.normal(size=k.shape), rng.normal(size=(B, time, H, V))
    memory = rng.normal(size=(B, H, K, V))
    as_f32 = lambda x: jnp.asarray(x, jnp.float32)
    tokens = jax.tree.map(as_f32, Tokens(q, k, v, alpha, beta, removal))
    return tokens, as_f32(memory), jnp.asarray(rng.uniform(size=(B, time)) < 0.15)


def plainly(tokens, memory, reset, writes=True):
    """The definition, with float64 loops and the transition matrix written out."""
    tokens = jax.tree.map(lambda x: np.asarray(x, np.float64), tokens)
    state, y = np.array(memory, np.float64), np.zeros(tokens.v_BTHV.shape)
    one = np.ones(tokens.k_BTHK.shape[:-1])
    alpha, beta, removal = (
        default if gate is None else gate
        for gate, default in (
            (tokens.alpha_BTH, one),
            (tokens.beta_BTH, one),
            (tokens.removal_BTH, 0 * one),
        )
    )
    for b, t, h in np.ndindex(one.shape):
        k, v = tokens.k_BTHK[b, t, h], tokens.v_BTHV[b, t, h]
        if reset is not None and reset[b, t]:
            state[b, h] = 0
        if writes:
            transition = alpha[b, t, h] * np.eye(k.size) - removal[b, t, h] * np.outer(k, k)
            state[b, h] = transition @ state[b, h] + beta[b, t, h] * np.outer(k, v)
        y[b, t, h] = state[b, h].T @ tokens.q_BTHK[b, t, h]
    return y, state


by_token = jax.jit(read_by_token, static_argnames="writes")
by_chunk = jax.jit(read_by_chunk, static_argnames=("writes", "chunk", "remat"))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("writes", [True, False])
def test_the_recurrence_is_its_definition(rule, writes):
    tokens, memory, reset = problem(rule)
    close(by_token(tokens, memory, reset, writes), plainly(tokens, memory, reset, writes))


@hypothesis.given(
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 2**16),
    chunk=st.sampled_from([1, 4, 8, 64]),
    keys=st.sampled_from(["random", "identical", "alternating"]),
    retention=st.sampled_from(RETENTIONS),
    resets=st.booleans(),
    writes=st.booleans(),
    fresh=st.booleans(),
)
@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
def test_chunks_equal_tokens(rule, seed, chunk, keys, retention, resets, writes, fresh):
    tokens, memory, reset = problem(rule, seed, keys=keys, retention=retention)
    args = tokens, None if fresh else memory, reset if resets else None, writes
    close(by_chunk(*args, chunk=chunk), by_token(*args))


@pytest.mark.parametrize("keys", ["random", "identical", "alternating"])
@pytest.mark.parametrize("rule", ["delta", "comba"])
@pytest.mark.parametrize("chunk", [64, 256])
def test_long_chunks_with_keys_that_repeat(rule, keys, chunk):
    """Nothing cancels, up to the largest beta at which the delta rule is used."""
    tokens, memory, _ = problem(rule, time=256, keys=keys, retention="one", max_beta=1.0)
    close(by_chunk(tokens, memory, chunk=chunk), by_token(tokens, memory))


@functools.partial(jax.jit, static_argnums=(0, 4))
def gradient_of(form, tokens, memory, reset, chunk):
    options = {} if chunk is None else {"chunk": chunk}

    def score(tokens, memory):
        out = form(tokens, memory, reset, **options)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in out)

    return jax.grad(score, (0, 1))(tokens, memory)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("chunk", "retention"), [(4, "random"), (5, "zero"), (13, "one")])
def test_gradients_agree(rule, chunk, retention):
    problem_ = problem(rule, 5, retention=retention)
    want = gradient_of(read_by_token, *problem_, None)
    got = gradient_of(read_by_chunk, *problem_, chunk)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(got))
    close(got, want, 3e-5)


def test_remat_changes_nothing():
    tokens, memory, reset = problem("gated_delta")

    def gradient(remat):
        def score(tokens):
            y, memory_end = read_by_chunk(tokens, memory, reset, chunk=3, remat=remat)
            return jnp.sum(y**2) + jnp.sum(memory_end)

        return jax.jit(jax.value_and_grad(score))(tokens)

    want = gradient("none")
    for remat in ("chunk", "sqrt", "auto"):
        close(gradient(remat), want)


@pytest.mark.parametrize("rule", RULES)
def test_any_cut_is_no_cut(rule):
    """Pieces by chunk and single steps, resets at and around the cuts."""
    tokens, memory, reset = problem(rule, 3)
    whole, end = by_chunk(tokens, memory, reset, chunk=4)
    part = lambda a, b: (
        jax.tree.map(lambda x: x[:, a:b], tokens),
        reset[:, a:b],
    )
    pieces = []
    for start, stop in ((0, 6), (6, 7), (7, 8), (8, 13)):
        some, some_reset = part(start, stop)
        if stop - start == 1:
            token = jax.tree.map(lambda x: x[:, 0], gated(some, some_reset))
            y, memory = step(memory, token)
            pieces.append(y[:, None])
        else:
            y, memory = by_chunk(some, memory, some_reset, chunk=4)
            pieces.append(y)
    close((jnp.concatenate(pieces, 1), memory), (whole, end))


def test_nothing_crosses_a_reset():
    tokens, memory, _ = problem("comba", 2)
    read = functools.partial(read_by_chunk, chunk=4)
    check_nothing_crosses_a_reset(read, tokens, memory)


def test_causality_by_gradient():
    tokens, memory, _ = problem("gated_delta", 1)
    check_causality(functools.partial(read_by_chunk, chunk=4), tokens, memory)


def test_delta_is_gated_delta_that_keeps_everything():
    delta, memory, reset = problem("delta")
    kept, _, _ = problem("gated_delta", retention="one")
    close(by_chunk(kept, memory, reset), by_chunk(delta, memory, reset), 1e-6)


def test_a_repeated_pair_converges_to_its_value():
    """The delta rule's fixed point is the value itself; plain sums grow without end."""
    tokens, memory, _ = problem("delta", time=40, keys="identical")
    tokens = tokens.replace(
        v_BTHV=jnp.broadcast_to(tokens.v_BTHV[:, :1], tokens.v_BTHV.shape),
        q_BTHK=tokens.k_BTHK,
    )
    y, _ = by_chunk(tokens, memory, chunk=16)
    np.testing.assert_allclose(y[:, -1], tokens.v_BTHV[:, -1], atol=1e-5)
    sums, _ = by_chunk(Tokens(tokens.q_BTHK, tokens.k_BTHK, tokens.v_BTHV), memory)
    difference = np.asarray(sums[:, -1] - sums[:, 0])
    np.testing.assert_allclose(difference, 39 * tokens.v_BTHV[:, -1], rtol=1e-3, atol=1e-4)


def test_delta_gradient_descent_on_the_dot_objective():
    """A write of Eq. 88 with g = -v is the gated delta rule with beta = eta / alpha and
    value alpha v, and Comba's rule with b = 1."""
    tokens, memory, _ = problem("gated_delta", 4, time=1)
    alpha = 0.5 + 0.5 * tokens.alpha_BTH
    eta = 0.4 * tokens.beta_BTH
    first = lambda x: x[:, 0]
    want, _ = dgd_step(
        memory,
        None,
        first(tokens.k_BTHK),
        -first(tokens.v_BTHV),
        Gates(first(eta), first(alpha)),
    )
    beta = eta / alpha
    as_gated_delta = tokens.replace(
        v_BTHV=alpha[..., None] * tokens.v_BTHV,
        alpha_BTH=alpha,
        beta_BTH=beta,
        removal_BTH=alpha * beta,
    )
    as_comba = tokens.replace(alpha_BTH=alpha, beta_BTH=eta, removal_BTH=eta)
    for form in (as_gated_delta, as_comba):
        close(by_chunk(form, memory)[1], want)


def test_hope_with_a_linear_memory_and_the_dot_objective():
    """Static projections and given targets: all of HOPE's recurrence is then the gated delta
    rule with beta = eta / alpha and value alpha v, read one token later."""
    size, chunk = 4, 5
    memory_spec = MemorySpec(
        values=("memory",),
        rates=(),
        size=size,
        hidden=size,
        rate_hidden=1,
        kind="linear",
        objective="dot",
        targets="shared",
    )
    spec = SelfModifyingSpec((Group(memory_spec, chunk),), value_norm="none", decay_to="zero")
    draw = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)
    q, k, v = (draw(i, B, T, H, size) for i in range(3))
    k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
    eta_logit, alpha_logit = draw(3, B, T, H), 2 + draw(4, B, T, H)
    initial = draw(5, H, size, size)
    heads_first = lambda x: jnp.moveaxis(x, 2, 1)
    inputs = Inputs(
        eta_logit=heads_first(eta_logit),
        alpha_logit=heads_first(alpha_logit),
        valid=jnp.ones((B, 1, T), bool),
        q=heads_first(q),
        k=heads_first(k),
        v=heads_first(v),
    )
    hope = jax.jit(read_and_write, static_argnums=0)(spec, (Memories(initial),), inputs)

    eta, alpha = jax.nn.sigmoid(eta_logit), jax.nn.sigmoid(alpha_logit)
    beta = eta / alpha
    later = jnp.roll(q, -1, axis=1)
    tokens = Tokens(later, k, alpha[..., None] * v, alpha, beta, alpha * beta)
    y, end = by_chunk(tokens, jnp.broadcast_to(initial, (B, *initial.shape)), chunk=4)
    close(y[:, :-1], jnp.moveaxis(hope.y, 1, 2)[:, 1:])
    close(end, hope.state.groups[0].running.w_in)


def test_half_precision_comes_in_and_float32_goes_out():
    tokens, _, _ = problem("gated_delta")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tokens)
    y, memory = by_chunk(half, chunk=4)
    assert (y.dtype, memory.dtype) == (jnp.float32, jnp.float32)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    close((y, memory), by_token(exact))
    assert empty_memory(half).dtype == jnp.float32
