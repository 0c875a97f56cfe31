"""The memory of RWKV-7: by chunk, by token and in pieces are one function."""

import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrences import check_causality, check_nothing_crosses_a_reset, close

from hope_jax.ops import linear_recurrence
from hope_jax.ops.rwkv7 import Tokens, read_by_chunk, read_by_token, step

B, T, H, K, V = 2, 13, 2, 4, 3
LIMIT = -math.exp(-0.5)  # the strongest decay of the published model
DECAYS = ("model", "limit", "none", "extremes")


def problem(seed=0, time=T, keys="random", decay="model"):
    """Tokens, a memory that is not empty, and resets inside chunks."""
    rng = np.random.default_rng(seed)
    normal = lambda: rng.normal(size=(B, time, H, K))
    kappa = normal()
    if keys == "identical":
        kappa[:] = kappa[:, :1]
    if keys == "alternating":
        kappa[:] = kappa[:, :1] * (-1.0) ** np.arange(time)[None, :, None, None]
    kappa /= np.linalg.norm(kappa, axis=-1, keepdims=True)
    a = rng.uniform(size=kappa.shape) if keys == "random" else np.ones(kappa.shape)
    k = normal() if keys == "random" else kappa
    log_w = {
        "model": rng.uniform(LIMIT, 0, kappa.shape),
        "limit": np.full(kappa.shape, LIMIT),
        "none": np.zeros(kappa.shape),
        "extremes": LIMIT * rng.integers(0, 2, kappa.shape),
    }[decay]
    tokens = Tokens(normal(), log_w, k, rng.normal(size=(B, time, H, V)), kappa, a)
    as_f32 = lambda x: jnp.asarray(x, jnp.float32)
    memory = rng.normal(size=(B, H, K, V))
    reset = jnp.asarray(rng.uniform(size=(B, time)) < 0.15)
    return jax.tree.map(as_f32, tokens), as_f32(memory), reset


def plainly(tokens, memory, reset, writes=True):
    """The published equation, float64, with its `[V, K]` matrix written out."""
    tokens = jax.tree.map(lambda x: np.asarray(x, np.float64), tokens)
    state, y = np.array(memory, np.float64), np.zeros(tokens.v_BTHV.shape)
    for b, t, h in np.ndindex(y.shape[:-1]):
        r, log_w, k, v, kappa, a = (x[b, t, h] for x in jax.tree.leaves(tokens))
        s_VK = state[b, h].T
        if reset is not None and reset[b, t]:
            s_VK = 0 * s_VK
        if writes:
            s_VK = s_VK @ (np.diag(np.exp(log_w)) - np.outer(kappa, a * kappa)) + np.outer(v, k)
        state[b, h], y[b, t, h] = s_VK.T, s_VK @ r
    return y, state


by_token = jax.jit(read_by_token, static_argnames="writes")
by_chunk = jax.jit(read_by_chunk, static_argnames=("writes", "chunk", "remat"))


@pytest.mark.parametrize("writes", [True, False])
def test_the_recurrence_is_its_definition(writes):
    tokens, memory, reset = problem()
    close(by_token(tokens, memory, reset, writes), plainly(tokens, memory, reset, writes))


@hypothesis.given(
    seed=st.integers(0, 2**16),
    chunk=st.sampled_from([1, 4, 7, 64]),
    keys=st.sampled_from(["random", "identical", "alternating"]),
    decay=st.sampled_from(DECAYS),
    resets=st.booleans(),
    writes=st.booleans(),
    fresh=st.booleans(),
)
@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
def test_chunks_equal_tokens(seed, chunk, keys, decay, resets, writes, fresh):
    tokens, memory, reset = problem(seed, keys=keys, decay=decay)
    args = tokens, None if fresh else memory, reset if resets else None, writes
    close(by_chunk(*args, chunk=chunk), by_token(*args))


@pytest.mark.parametrize("keys", ["random", "identical", "alternating"])
@pytest.mark.parametrize("decay", ["limit", "none", "extremes"])
def test_long_chunks_of_hard_tokens(keys, decay):
    """Of the longest chunk that is allowed, which decays by e^78 at the limit.

    Without decay, what identical keys write and remove sums up over the chunk and cancels.
    """
    tokens, memory, _ = problem(time=256, keys=keys, decay=decay)
    close(by_chunk(tokens, memory, chunk=128), by_token(tokens, memory), 3e-5)


@functools.partial(jax.jit, static_argnums=(0, 4))
def gradient_of(form, tokens, memory, reset, chunk):
    options = {} if chunk is None else {"chunk": chunk}

    def score(tokens, memory):
        out = form(tokens, memory, reset, **options)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in out)

    return jax.grad(score, (0, 1))(tokens, memory)


@pytest.mark.parametrize(
    ("chunk", "keys", "decay"),
    [
        (4, "random", "model"),
        (5, "identical", "limit"),
        (13, "random", "extremes"),
        (8, "alternating", "none"),
    ],
)
def test_gradients_agree(chunk, keys, decay):
    problem_ = problem(5, keys=keys, decay=decay)
    want = gradient_of(read_by_token, *problem_, None)
    got = gradient_of(read_by_chunk, *problem_, chunk)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(got))
    close(got, want, 3e-5)


def test_gradients_of_long_chunks_at_the_strongest_decay():
    """With resets too: what they mask out has the largest factors."""
    tokens, memory, reset = problem(6, time=128, keys="identical", decay="limit")
    want = gradient_of(read_by_token, tokens, memory, reset, None)
    close(gradient_of(read_by_chunk, tokens, memory, reset, 128), want, 5e-5)


def test_remat_changes_nothing():
    tokens, memory, reset = problem()

    def gradient(remat):
        def score(tokens):
            y, memory_end = read_by_chunk(tokens, memory, reset, chunk=3, remat=remat)
            return jnp.sum(y**2) + jnp.sum(memory_end)

        return jax.jit(jax.value_and_grad(score))(tokens)

    want = gradient("none")
    for remat in ("chunk", "sqrt"):
        close(gradient(remat), want)


def test_any_cut_is_no_cut():
    """Pieces by chunk and single steps, resets at and around the cuts."""
    tokens, memory, reset = problem(3)
    whole, end = by_chunk(tokens, memory, reset, chunk=4)
    pieces = []
    for start, stop in ((0, 6), (6, 7), (7, 8), (8, 13)):
        some = jax.tree.map(lambda x, cut=slice(start, stop): x[:, cut], tokens)
        if stop - start == 1:
            token = jax.tree.map(lambda x: x[:, 0], some)
            y, memory = step(memory, token, reset[:, start])
            pieces.append(y[:, None])
        else:
            y, memory = by_chunk(some, memory, reset[:, start:stop], chunk=4)
            pieces.append(y)
    close((jnp.concatenate(pieces, 1), memory), (whole, end))


def test_nothing_crosses_a_reset():
    tokens, memory, _ = problem(2)
    read = functools.partial(read_by_chunk, chunk=4)
    check_nothing_crosses_a_reset(read, tokens, memory)


def test_causality_by_gradient():
    tokens, memory, _ = problem(1)
    check_causality(functools.partial(read_by_chunk, chunk=4), tokens, memory)


@pytest.mark.parametrize("rule", ["gated_delta", "delta", "linear"])
def test_equal_channels_are_the_gated_delta_rule(rule):
    """w = alpha and a = alpha beta in all channels, kappa = k, and beta k is written."""
    tokens, memory, reset = problem(4)
    gates = np.random.default_rng(0).uniform(0.1, 1, size=(2, B, T, H, 1)).astype(np.float32)
    alpha, beta = {
        "gated_delta": gates,
        "delta": (np.ones_like(gates[0]), gates[1]),
        "linear": (np.ones_like(gates[0]), np.zeros_like(gates[1])),
    }[rule]
    every = lambda gate: jnp.broadcast_to(gate, tokens.k_BTHK.shape)
    strength = np.ones_like(beta) if rule == "linear" else beta
    equal = tokens.replace(
        log_w_BTHK=every(np.log(alpha)),
        a_BTHK=every(alpha * beta),
        k_BTHK=strength * tokens.kappa_BTHK,
    )
    one = lambda gate: jnp.asarray(gate[..., 0])
    want = linear_recurrence.Tokens(
        tokens.r_BTHK,
        tokens.kappa_BTHK,
        tokens.v_BTHV,
        one(alpha),
        one(strength),
        one(alpha * beta),
    )
    got = by_chunk(equal, memory, reset, chunk=8)
    close(got, jax.jit(linear_recurrence.read_by_chunk)(want, memory, reset))


def test_half_precision_comes_in_and_float32_goes_out():
    tokens, _, _ = problem()
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tokens)
    y, memory = by_chunk(half, chunk=4)
    assert (y.dtype, memory.dtype) == (jnp.float32, jnp.float32)
    close((y, memory), by_token(jax.tree.map(lambda x: x.astype(jnp.float32), half)))
