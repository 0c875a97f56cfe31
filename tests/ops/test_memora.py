"""Memora: by chunk and by token it is the recurrence that its paper writes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.ops.memora import (
    Memory,
    Tokens,
    initial_state,
    read_by_chunk,
    read_by_token,
    weights,
)

B, TIME, HEADS, SIZE, HIDDEN = 2, 14, 2, 4, 6
EPS = 0.1
SLOW = pytest.mark.slow


def make_memory(simplex="inputs", mass=None, read="linear"):
    keys = jax.random.split(jax.random.key(0), 4)
    normal = lambda i, *shape: jax.random.normal(keys[i], (HEADS, *shape))
    return Memory(
        normal(0, SIZE, HIDDEN),
        normal(1, HIDDEN, SIZE),
        1 + 0.2 * normal(2, SIZE),
        0.2 * normal(3, SIZE),
        simplex,
        mass,
        EPS,
        read,
    )


def make_tokens(same_key=False, rate=0.1, alpha=None, per_channel=True):
    keys = jax.random.split(jax.random.key(5), 5)
    q, k, v = (jax.random.normal(key, (B, TIME, HEADS, SIZE)) for key in keys[:3])
    if same_key:
        k = jnp.broadcast_to(k[:, :1], k.shape)
    k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
    channels = SIZE if per_channel else 1
    eta = rate * jax.random.uniform(keys[3], (B, TIME, HEADS, channels))
    alphas = jax.random.uniform(keys[4], (B, TIME, HEADS))
    return Tokens(q, k, v, eta, alphas if alpha is None else jnp.full_like(alphas, alpha))


def make_resets():
    """At a boundary of chunks, inside of one, twice in one, at the first token."""
    reset_BT = np.zeros((B, TIME), bool)
    reset_BT[0, [0, 5, 12]] = True
    reset_BT[1, [8, 9, 11]] = True
    return jnp.asarray(reset_BT)


def simplex_of(logits, memory):
    """Exponentials over their sums; only what is common to all is taken off before."""
    axes = {"inputs": 0, "outputs": 1, "matrix": (0, 1)}[memory.simplex]
    w = jnp.exp(logits - jax.lax.stop_gradient(logits.max()))
    count = {"inputs": w.shape[0], "outputs": w.shape[1], "matrix": w.size}[memory.simplex]
    return (memory.mass or count) * w / w.sum(axes, keepdims=True)


def evaluate(w, scale, bias, x):
    z = jax.nn.gelu(x @ w[0]) @ w[1]
    centred = z - z.mean()
    return x + centred / jnp.sqrt(jnp.mean(centred**2) + EPS) * scale + bias


def define(memory, tokens, chunk, reset_BT):
    """The definition: explicit weights for every token, gradients by differentiation."""

    def loss(w, scale, bias, k, v):
        return 0.5 * jnp.sum((evaluate(w, scale, bias, k) - v) ** 2)

    def one_head(a_in, a_out, scale, bias, q_TK, k_TK, v_TK, eta_TK, alpha_T, reset_T):
        initial, simplex = (a_in, a_out), lambda a: tuple(simplex_of(x, memory) for x in a)

        def step(carry, token):
            logs, w1, m = carry
            slot, q, k, v, eta, alpha, reset = token
            again = lambda old, new: jax.tree.map(lambda a, b: jnp.where(reset, b, a), old, new)
            logs, lag = again(logs, initial), slot % chunk == 0
            w1, m = again(w1, simplex(initial)), again(m, simplex(initial))
            # at a lag token, of the weights that the softmax gives
            now = jax.tree.map(lambda a, b: jnp.where(lag, a, b), simplex(logs), w1)
            g_in, g_out = jax.grad(loss)(now, scale, bias, k, v)
            eta = jnp.broadcast_to(eta, k.shape)
            steps = eta[:, None] * g_in, eta[None] * g_out
            written = lambda a: jax.tree.map(lambda a, g: alpha * a - g, a, steps)
            logs = written(logs)
            lagged = simplex(logs)
            w1 = jax.tree.map(lambda a, b: jnp.where(lag, a, b), lagged, w1)
            m = jax.tree.map(lambda a, b: jnp.where(lag, a, b), lagged, written(m))
            read = m if memory.read == "linear" else w1
            return (logs, w1, m), evaluate(read, scale, bias, q)

        xs = jnp.arange(TIME), q_TK, k_TK, v_TK, eta_TK, alpha_T, reset_T
        return jax.lax.scan(step, (initial, simplex(initial), simplex(initial)), xs)[1]

    heads = jax.vmap(one_head, (0, 0, 0, 0, 1, 1, 1, 1, 1, None), 1)
    rows = jax.vmap(heads, (None,) * 4 + (0,) * 6)
    if reset_BT is None:
        reset_BT = jnp.zeros((B, TIME), bool)
    slow = memory.in_HKF, memory.out_HFK, memory.scale_HK, memory.bias_HK
    fast = tokens.q_BTHK, tokens.k_BTHK, tokens.v_BTHK, tokens.eta_BTHK, tokens.alpha_BTH
    return rows(*slow, *fast, reset_BT)


@functools.cache
def both(form, chunk):
    """Reads, and their gradients for all inputs, beside those of the definition."""

    def run(memory, tokens, reset_BT):
        dy = jax.random.normal(jax.random.key(9), (B, TIME, HEADS, SIZE))
        results = []
        for read in (
            lambda *args: form(*args, reset_BT=reset_BT, chunk=chunk)[0],
            lambda *args: define(*args, chunk, reset_BT),
        ):
            y, pull = jax.vjp(read, memory, tokens)
            results.append((y, pull(dy)))
        return results

    return jax.jit(run)


def agree(actual, expected, tolerance=1e-4):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * float(np.abs(e).max() + 1e-2))


@pytest.mark.parametrize(
    ("form", "chunk", "simplex", "read", "with_resets"),
    [
        (read_by_chunk, 4, "inputs", "linear", True),
        pytest.param(read_by_chunk, 7, "outputs", "linear", True, marks=SLOW),
        pytest.param(read_by_chunk, 16, "matrix", "linear", False, marks=SLOW),
        pytest.param(read_by_chunk, 1, "inputs", "linear", True, marks=SLOW),
        pytest.param(read_by_chunk, 4, "inputs", "lag", False, marks=SLOW),
        (read_by_token, 4, "inputs", "linear", True),
        pytest.param(read_by_token, 1, "matrix", "linear", False, marks=SLOW),
    ],
)
def test_is_its_definition(form, chunk, simplex, read, with_resets):
    """In values and gradients; the gradients pass through every write."""
    reset_BT = make_resets() if with_resets else None
    agree(*both(form, chunk)(make_memory(simplex, read=read), make_tokens(), reset_BT))


@pytest.mark.parametrize(
    "tokens",
    [
        {"same_key": True, "rate": 1.0, "alpha": 1.0},
        {"alpha": 0.0},
    ],
)
def test_hard_inputs(tokens):
    """Equal keys with rates that saturate the softmax; retention that is lost at once."""
    got, want = both(read_by_chunk, 4)(make_memory(mass=2.0), make_tokens(**tokens), None)
    agree(got, want, 3e-4)


def test_one_token_a_chunk_is_the_published_recurrence():
    """`W = c softmax(alpha log W - eta grad)` in NumPy with the gradient by differences."""
    memory, tokens = make_memory(), make_tokens(per_channel=False)
    y_BTHK, state = jax.jit(functools.partial(read_by_chunk, chunk=1))(memory, tokens)
    f64 = lambda x: np.asarray(x, np.float64)
    scale, bias = f64(memory.scale_HK[1]), f64(memory.bias_HK[1])

    def gelu(x):
        return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))

    def inner(w_in, w_out, x):
        z = gelu(x @ w_in) @ w_out
        return x + (z - z.mean()) / np.sqrt(z.var() + EPS) * scale + bias

    def softmax(a):
        e = np.exp(a - a.max(0))
        return len(a) * e / e.sum(0)

    def slopes(loss, w, h=1e-6):
        g = np.zeros_like(w)
        for i in np.ndindex(w.shape):
            d = np.zeros_like(w)
            d[i] = h
            g[i] = (loss(w + d) - loss(w - d)) / (2 * h)
        return g

    w_in, w_out = softmax(f64(memory.in_HKF[1])), softmax(f64(memory.out_HFK[1]))
    for t in range(TIME):
        q, k, v, eta = (f64(x[0, t, 1]) for x in jax.tree.leaves(tokens)[:4])
        alpha = f64(tokens.alpha_BTH[0, t, 1])
        loss = lambda a, b, k=k, v=v: 0.5 * np.sum((inner(a, b, k) - v) ** 2)
        g_in = slopes(lambda w, b=w_out, f=loss: f(w, b), w_in)
        g_out = slopes(lambda w, a=w_in, f=loss: f(a, w), w_out)
        w_in = softmax(alpha * np.log(w_in) - eta * g_in)
        w_out = softmax(alpha * np.log(w_out) - eta * g_out)
        np.testing.assert_allclose(y_BTHK[0, t, 1], inner(w_in, w_out, q), atol=2e-4)
    for logits, want in zip(state.logits, (w_in, w_out), strict=True):
        got = weights(logits, memory)[0, 1]
        np.testing.assert_allclose(got, want, rtol=1e-3)
        np.testing.assert_allclose(got.sum(0), got.shape[0], rtol=1e-5)
        assert np.all(got > 0)


def piece(tree, start, stop):
    return jax.tree.map(lambda x: x[:, start:stop], tree)


@pytest.mark.parametrize("cuts", [(1, 4, 6), (5, 6, 13)])
def test_a_stream_may_be_cut_anywhere(cuts):
    """In either form; the state of both is the same."""
    memory, tokens, reset_BT = make_memory(), make_tokens(), make_resets()
    want = read_by_chunk(memory, tokens, None, reset_BT, chunk=4)
    ys, state = [], initial_state(memory, B, 4)
    for start, stop in zip((0, *cuts), (*cuts, TIME), strict=True):
        form = read_by_token if stop - start < 3 else read_by_chunk
        part, resets = piece(tokens, start, stop), reset_BT[:, start:stop]
        y, state = form(memory, part, state, resets, chunk=4)
        ys.append(y)
    agree((jnp.concatenate(ys, 1), state), want)


def test_reading_alone_reads_what_the_next_token_finds():
    """Between tokens of a chunk; and after a reset the initial weights."""
    memory, tokens = make_memory(), make_tokens()
    _, state = read_by_chunk(memory, piece(tokens, 0, 6), chunk=4)
    asked = piece(tokens, 6, 9)
    nothing = asked.replace(
        eta_BTHK=jnp.zeros_like(asked.eta_BTHK), alpha_BTH=jnp.ones_like(asked.alpha_BTH)
    )
    want, _ = read_by_token(memory, piece(nothing, 0, 2), state, chunk=4)
    read = functools.partial(read_by_chunk, memory, asked, state, writes=False, chunk=4)
    y, after = read()
    agree(y[:, :2], want)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    reset_BT = jnp.zeros((B, 3), bool).at[1, 1].set(True)
    y, after = read(reset_BT=reset_BT)
    fresh, _ = read_by_chunk(memory, piece(asked, 1, 3), writes=False, chunk=4)
    agree(y[1, 1:], fresh[1])
    agree(y[0, :2], want[0])
    agree(jax.tree.map(lambda x: x[1], after.logits), (memory.in_HKF, memory.out_HFK))
    assert int(after.position) == 2 and not np.any(after.written[0].u_BHCO[1])


def test_a_constant_of_a_slice_makes_no_difference():
    memory, tokens = make_memory(), make_tokens(alpha=0.9)
    shifted = memory.replace(in_HKF=memory.in_HKF + 3.0, out_HFK=memory.out_HFK - 5.0)
    agree(*(read_by_chunk(m, tokens, chunk=4)[0] for m in (shifted, memory)))
