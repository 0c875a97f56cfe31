"""Deep memories: the closed form of a chunk against the published equations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.ops import linear_recurrence
from hope_jax.ops.deep_memory import (
    DeepMemorySpec,
    Tokens,
    initial_state,
    read_by_chunk,
    read_by_token,
)
from hope_jax.ops.memory import Memories, MemorySpec
from hope_jax.ops.self_modifying import Group, Inputs, SelfModifyingSpec, read_and_write

TIME, BATCH, HEADS, SIZE = 11, 2, 2, 4
RESETS = {0: (0, 5), 1: (6, 7, 8)}  # inside a chunk, twice in one, at a boundary
RESET_BT = np.zeros((BATCH, TIME), bool)
for row, places in RESETS.items():
    RESET_BT[row, list(places)] = True

TITANS = DeepMemorySpec(chunk=4, activation="silu")
SPECS = {
    "titans": (TITANS, (SIZE, 6, SIZE)),
    "token by token": (DeepMemorySpec(chunk=1), (SIZE, 6, SIZE)),
    "three layers": (DeepMemorySpec(chunk=4, residual=True), (SIZE, 5, 6, SIZE)),
    "linear": (DeepMemorySpec(chunk=3, decay_to="initial"), (SIZE, 3)),
    "dla": (
        DeepMemorySpec(chunk=4, objective="dot", hidden_norm="l2", decay_to="initial"),
        (SIZE, 6, SIZE),
    ),
}


def make_layers(sizes, scale=0.6):
    keys = jax.random.split(jax.random.key(0), len(sizes))
    shapes = zip(sizes[:-1], sizes[1:], keys, strict=False)
    return tuple(scale * jax.random.normal(key, (HEADS, a, b)) for a, b, key in shapes)


def make_tokens(values=SIZE, momentum=True, kind="random", time=TIME):
    """Keys of unit length; gates of every size, or the hardest there are."""
    rng = np.random.default_rng(3)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    shape = (BATCH, time, HEADS)
    q, k = (unit(rng.normal(size=(*shape, SIZE))) for _ in range(2))
    v = rng.normal(size=(*shape, values))
    rate, retention, mu = (
        rng.uniform(0, 0.5, shape),
        rng.uniform(size=shape),
        rng.uniform(size=shape),
    )
    if kind == "hard":
        k[:] = k[:, :1]
        retention = rng.choice([0.0, 1e-6, 1.0], size=shape)
        mu = rng.choice([0.0, 1.0], size=shape)
    arrays = (q, k, v, rate, retention, mu if momentum else None)
    return Tokens(*jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), arrays))


@functools.cache
def compiled(read, spec):
    return jax.jit(functools.partial(read, spec), static_argnames="writes")


def close(actual, expected, tolerance=2e-5):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, atol=tolerance * (np.abs(e).max() + 1), rtol=0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {  # with derivatives
    "silu": (
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    ),
    "gelu": (
        lambda x: x * sigmoid(np.sqrt(8 / np.pi) * (x + 0.044715 * x**3)),
        lambda x: (
            sigmoid(s := np.sqrt(8 / np.pi) * (x + 0.044715 * x**3))
            + x * sigmoid(s) * (1 - sigmoid(s)) * np.sqrt(8 / np.pi) * (1 + 3 * 0.044715 * x**2)
        ),
    ),
}


def written_out(spec, layers, tokens, row, head):
    """One head of one row in the papers' words, float64, a matrix for every token."""
    act, slope = ACTIVATIONS[spec.activation]

    def forward(weights, x):
        """The output, and the input of every layer with how it depends on the one before."""
        z, inputs, slopes = x, [], []
        for i, w in enumerate(weights):
            if i:
                pre, z = z, act(z)
                jacobian = np.diag(slope(pre))
                if spec.hidden_norm == "l2":
                    length = np.sqrt(z @ z + 1e-2)
                    z = z / length
                    jacobian = (np.eye(len(z)) - np.outer(z, z)) / length @ jacobian
                slopes.append(jacobian)
            inputs.append(z)
            z = z @ w
        return z + (x if spec.residual else 0), inputs, slopes

    def gradient(weights, k, v):
        z, inputs, slopes = forward(weights, k)
        back = -v if spec.objective == "dot" else z - v
        result = []
        for i in reversed(range(len(weights))):
            result.insert(0, np.outer(inputs[i], back))
            if i:
                back = slopes[i - 1].T @ (weights[i] @ back)
        return result

    initial = [np.asarray(w[head], np.float64) for w in layers]
    pick = lambda x: None if x is None else np.asarray(x[row, :, head], np.float64)
    q, k, v, theta, keep, eta = map(
        pick, jax.tree.leaves(tokens) + [None] * (tokens.momentum_BTH is None)
    )
    nothing = [np.zeros_like(w) for w in initial]
    now, start, surprise, reads = initial, initial, nothing, []
    for t in range(len(q)):
        if t in RESETS[row]:
            now, start, surprise = initial, initial, nothing
        if t % spec.chunk == 0:
            start = now
        grads = gradient(start, k[t], v[t])
        past = 0.0 if eta is None else eta[t]
        surprise = [past * s - theta[t] * g for s, g in zip(surprise, grads, strict=True)]
        now = [keep[t] * m + s for m, s in zip(now, surprise, strict=True)]
        if spec.decay_to == "initial":
            now = [m + (1 - keep[t]) * m0 for m, m0 in zip(now, initial, strict=True)]
        reads.append(forward(now, q[t])[0])
    return np.stack(reads), now


@pytest.mark.parametrize("name", SPECS)
def test_both_forms_are_the_published_recurrence(name):
    spec, sizes = SPECS[name]
    layers = make_layers(sizes)
    tokens = make_tokens(sizes[-1], momentum=name != "dla")
    for read in (read_by_chunk, read_by_token):
        y, state = compiled(read, spec)(layers, tokens, reset_BT=jnp.asarray(RESET_BT))
        for row in range(BATCH):
            for head in range(HEADS):
                want, weights = written_out(spec, layers, tokens, row, head)
                close(y[row, :, head], want)
                close([w[row, head] for w in state.weights.running], weights)


@pytest.mark.parametrize(("name", "kind"), [("titans", "random"), ("three layers", "hard")])
def test_gradients_are_those_of_the_plain_recurrence(name, kind):
    """Also for one key, and gates that keep everything or nothing."""
    spec, sizes = SPECS[name]
    layers, tokens = make_layers(sizes), make_tokens(kind=kind)
    weigh = jnp.cos(jnp.arange(float(BATCH * TIME * HEADS * SIZE)))

    def value_and_grads(read):
        def loss(layers, tokens):
            y, state = read(spec, layers, tokens, reset_BT=jnp.asarray(RESET_BT))
            ends = sum(jnp.sum(jnp.sin(w)) for w in jax.tree.leaves(state.weights))
            return jnp.vdot(y.ravel(), weigh) + ends

        return jax.jit(jax.value_and_grad(loss, (0, 1)))(layers, tokens)

    close(value_and_grads(read_by_chunk), value_and_grads(read_by_token), 1e-4)


def test_any_cut_equals_no_cut():
    """With a stretch in the middle that only reads; chunks go on meanwhile."""
    layers, tokens = make_layers(SPECS["titans"][1]), make_tokens()
    pieces = ((3, True), (1, True), (4, False), (1, False), (2, True))
    ends = []
    for read in (read_by_chunk, read_by_token):
        state, start, reads = initial_state(layers, BATCH, momentum=True), 0, []
        for length, writes in pieces:
            stop = start + length
            piece = jax.tree.map(lambda x, a=start, b=stop: x[:, a:b], tokens)
            reset_BT = jnp.asarray(RESET_BT[:, start:stop])
            y, after = compiled(read, TITANS)(layers, piece, state, reset_BT, writes=writes)
            if not writes and not RESET_BT[:, start:stop].any():
                jax.tree.map(
                    np.testing.assert_array_equal, after.weights.running, state.weights.running
                )
            state, start = after, stop
            reads.append(y)
        ends.append((jnp.concatenate(reads, 1), state))
    close(*ends)


def test_a_linear_memory_without_momentum_is_the_gated_delta_rule():
    """With rate beta and retention alpha: alpha S + beta k (v - S^T k)^T."""
    layers = (jnp.zeros((HEADS, SIZE, 3)),)
    tokens = make_tokens(3, momentum=False)
    spec = DeepMemorySpec(chunk=1)
    y, state = compiled(read_by_chunk, spec)(layers, tokens, reset_BT=jnp.asarray(RESET_BT))
    same = linear_recurrence.Tokens(
        tokens.q_BTHK,
        tokens.k_BTHK,
        tokens.v_BTHV,
        alpha_BTH=tokens.retention_BTH,
        beta_BTH=tokens.rate_BTH,
        removal_BTH=tokens.rate_BTH,
    )
    want, memory = linear_recurrence.read_by_chunk(same, None, jnp.asarray(RESET_BT))
    close((y, state.weights.running[0]), (want, memory))


def test_a_linear_memory_of_dot_products_is_gated_linear_attention():
    """In chunks of any length, as its gradient does not depend on the weights."""
    layers = (jnp.zeros((HEADS, SIZE, 3)),)
    tokens = make_tokens(3, momentum=False)
    same = linear_recurrence.Tokens(
        tokens.q_BTHK,
        tokens.k_BTHK,
        tokens.v_BTHV,
        alpha_BTH=tokens.retention_BTH,
        beta_BTH=tokens.rate_BTH,
    )
    want = linear_recurrence.read_by_chunk(same, None, jnp.asarray(RESET_BT))
    for chunk in (1, 4):
        spec = DeepMemorySpec(chunk=chunk, objective="dot")
        y, state = compiled(read_by_chunk, spec)(layers, tokens, reset_BT=jnp.asarray(RESET_BT))
        close((y, state.weights.running[0]), want)


@pytest.mark.parametrize("momentum", [False, True])
def test_it_is_the_main_memory_of_self_modifying_titans_where_alike(momentum):
    """That reads before it writes, so its next token asks with this token's query."""
    tokens = make_tokens(momentum=momentum)
    layers = make_layers((SIZE, 6, SIZE))
    spec = DeepMemorySpec(chunk=4, hidden_norm="l2", residual=True)
    y, state = compiled(read_by_chunk, spec)(layers, tokens)
    memory = MemorySpec(("memory",), (), SIZE, 6, 1, targets="shared")
    other = SelfModifyingSpec(
        (Group(memory, 4),), rule="gd", momentum=momentum, decay_to=spec.decay_to
    )
    first = lambda x: None if x is None else jnp.swapaxes(x, 1, 2)
    inputs = Inputs(
        eta_logit=None,
        alpha_logit=None,
        valid=jnp.ones((BATCH, 1, TIME), bool),
        k=first(tokens.k_BTHK),
        v=first(tokens.v_BTHV),
        q=jnp.roll(first(tokens.q_BTHK), 1, axis=2),
        eta=first(tokens.rate_BTH),
        alpha=first(tokens.retention_BTH),
        mu=first(tokens.momentum_BTH),
    )
    initial = (Memories(layers[0], layers[1][:, None]),)
    reading = jax.jit(functools.partial(read_and_write, other))(initial, inputs)
    close(first(reading.y)[:, 1:], y[:, :-1])
    running = reading.state.groups[0].running
    close((running.w_in, running.w_value[:, :, 0]), state.weights.running)
