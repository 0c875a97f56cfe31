"""Selective state spaces: by chunk, by token and in pieces are one function."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrences import close

from hope_jax.ops.selective_scan import (
    Tokens,
    empty_state,
    gated,
    read_by_chunk,
    read_by_token,
    step,
)

B, T, E, N = 2, 13, 3, 4
STEPS = ("usual", "zero", "vanishing", "huge", "extremes")


def problem(seed=0, time=T, steps="usual"):
    """Tokens, rates, a state that is not empty, and resets inside chunks."""
    rng = np.random.default_rng(seed)
    shape = (B, time, E)
    dt = {
        "usual": rng.uniform(0, 1, shape),
        "zero": np.zeros(shape),
        "vanishing": np.full(shape, 1e-6),
        "huge": np.full(shape, 60.0),  # decays that are 0 in float32
        "extremes": rng.integers(0, 2, shape) * 60.0,
    }[steps]
    x, b, c = rng.normal(size=shape), *rng.normal(size=(2, B, time, N))
    tokens = jax.tree.map(jnp.float32, Tokens(x, dt, b, c))
    a, state = (
        jnp.float32(-rng.uniform(0.5, 4, (N, E))),
        jnp.float32(rng.normal(size=(B, N, E))),
    )
    return tokens, a, state, jnp.asarray(rng.uniform(size=(B, time)) < 0.15)


def plainly(tokens, a, state, reset, writes=True):
    """Algorithm 2 of the paper in float64, one channel at a time."""
    x, dt, b, c = (
        np.asarray(y, np.float64)
        for y in (tokens.x_BTE, tokens.dt_BTE, tokens.b_BTN, tokens.c_BTN)
    )
    state, a, y = np.array(state, np.float64), np.asarray(a, np.float64), np.zeros(x.shape)
    for i, t, e in np.ndindex(x.shape):
        if reset is not None and reset[i, t]:
            state[i, :, e] = 0
        if writes:
            a_bar = np.diag(np.exp(dt[i, t, e] * a[:, e]))
            state[i, :, e] = a_bar @ state[i, :, e] + dt[i, t, e] * b[i, t] * x[i, t, e]
        y[i, t, e] = c[i, t] @ state[i, :, e]
    return y, state


by_token = jax.jit(read_by_token, static_argnames="writes")
by_chunk = jax.jit(read_by_chunk, static_argnames=("writes", "chunk", "remat"))


@pytest.mark.parametrize("writes", [True, False])
def test_the_recurrence_is_its_definition(writes):
    args = problem()
    close(by_token(*args, writes), plainly(*args, writes))


@hypothesis.given(
    seed=st.integers(0, 2**16),
    chunk=st.sampled_from([1, 4, 8, 64]),
    steps=st.sampled_from(STEPS),
    resets=st.booleans(),
    writes=st.booleans(),
    fresh=st.booleans(),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_chunks_change_nothing(seed, chunk, steps, resets, writes, fresh):
    tokens, a, state, reset = problem(seed, steps=steps)
    args = (tokens, a, None if fresh else state, reset if resets else None, writes)
    close(by_chunk(*args, chunk=chunk), by_token(*args))


@functools.cache
def gradients(form, **options):
    def loss(tokens, a, state, reset):
        y, state = form(tokens, a, state, reset, **options)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(3 * state))

    return jax.jit(jax.grad(loss, (0, 1, 2)))


@pytest.mark.parametrize("steps", STEPS)
def test_gradients_of_chunks_are_those_of_the_recurrence(steps):
    args = problem(1, steps=steps)
    want = gradients(read_by_token)(*args)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(want))
    close(gradients(read_by_chunk, chunk=4)(*args), want)
    close(gradients(read_by_chunk, chunk=5, remat="sqrt")(*args), want)


@pytest.mark.parametrize("cuts", [(1, 4), (6,), (5, 6, 7)])
def test_a_stream_may_be_cut_anywhere(cuts):
    tokens, a, state, reset = problem(2)
    want = by_chunk(tokens, a, state, reset, chunk=4)
    ys = []
    for start, stop in zip((0, *cuts), (*cuts, T), strict=True):
        part = jax.tree.map(lambda x, s=slice(start, stop): x[:, s], tokens)
        y, state = by_chunk(part, a, state, reset[:, start:stop], chunk=4)
        ys.append(y)
    close((jnp.concatenate(ys, 1), state), want)


def test_one_step_is_one_token():
    tokens, a, state, reset = problem(3, time=1)
    y, after = step(state, jax.tree.map(lambda x: x[:, 0], gated(tokens, reset)), a)
    close((y[:, None], after), by_chunk(tokens, a, state, reset))


def test_half_precision_comes_in_and_float32_goes_out():
    tokens, a, _, _ = problem()
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tokens)
    y, state = by_chunk(half, a, chunk=4)
    assert (y.dtype, state.dtype) == (jnp.float32, jnp.float32)
    close((y, state), by_token(jax.tree.map(lambda x: x.astype(jnp.float32), half), a))
    assert empty_state(half).dtype == jnp.float32


def test_no_array_holds_the_states_of_the_whole_sequence():
    """In the gradient too: nothing is larger than the inputs of all tokens."""
    tokens, a, _, _ = problem(time=1024)
    loss = lambda tokens, a: read_by_chunk(tokens, a, chunk=16)[0].sum()
    jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(tokens, a)

    def largest(jaxpr):
        sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars]
        for eqn in jaxpr.eqns:
            for value in jax.tree.leaves(list(eqn.params.values())):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    sizes.append(largest(inner))
        return max(sizes)

    assert largest(jaxpr.jaxpr) < 1024 * B * E * N
