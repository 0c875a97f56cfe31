"""Test-time training: the dual form against descent on the loss that it stands for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.ops.rope import rope
from hope_jax.ops.ttt import (
    Affine,
    InnerModel,
    Tokens,
    initial_state,
    places,
    read_by_chunk,
    read_token_by_token,
)

TIME, HEADS, SIZE = 14, 2, 4
EPS = 1e-6


def make_model(kind, key=0):
    sizes = {"linear": (SIZE, SIZE), "mlp": (SIZE, 2 * SIZE, SIZE)}[kind]
    keys = iter(jax.random.split(jax.random.key(key), 9))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    layers = tuple(
        Affine(0.5 * normal(HEADS, a, b), 0.1 * normal(HEADS, b))
        for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    )
    norm = 1 + 0.2 * normal(HEADS, SIZE), 0.2 * normal(HEADS, SIZE)
    return InnerModel(layers, *norm)


def make_tokens(same_key=False, rate=0.3):
    keys = jax.random.split(jax.random.key(5), 4)
    q, k, v = (jax.random.normal(key, (2, TIME, HEADS, SIZE)) for key in keys[:3])
    if same_key:
        k = jnp.broadcast_to(k[:, :1], k.shape)
    return Tokens(q, k, v, rate * jax.random.uniform(keys[3], (2, TIME, HEADS)))


def make_steps(chunk):
    return 1 / jnp.arange(1.0, chunk + 1) + 0.1 * jnp.cos(jnp.arange(chunk))


def make_resets():
    """At a boundary of chunks, inside of one, twice in one, at the first token."""
    reset_BT = np.zeros((2, TIME), bool)
    reset_BT[0, [0, 5]] = True
    reset_BT[1, [8, 9, 11]] = True
    return jnp.asarray(reset_BT)


def descend(model, tokens, step_C, reset_BT):
    """The definition: explicit weights for every token, gradients by differentiation."""
    chunk = step_C.shape[0]

    def inner(layers, scale, bias, x):
        for index, layer in enumerate(layers):
            x = jax.nn.gelu(x) if index else x
            x = x @ layer.w + layer.b
        centred = x - x.mean()
        return centred / jnp.sqrt(jnp.mean(centred**2) + EPS) * scale + bias

    def loss(layers, scale, bias, k, v):
        return 0.5 * jnp.sum((inner(layers, scale, bias, k) - (v - k)) ** 2)

    def one_head(layers, scale, bias, q_TK, k_TK, v_TK, eta_T, reset_T):
        def step(carry, token):
            start, total, place = carry
            slot, q, k, v, eta, reset = token
            new = reset | (slot % chunk == 0)
            now = jax.tree.map(
                lambda w, t: w - step_C[jnp.maximum(place - 1, 0)] * t, start, total
            )
            begin = jax.tree.map(lambda a, b: jnp.where(reset, a, b), layers, now)
            start = jax.tree.map(lambda a, b: jnp.where(new, a, b), begin, start)
            total = jax.tree.map(lambda t: jnp.where(new, 0.0, t), total)
            place = jnp.where(new, 0, place)
            grads = jax.grad(loss)(start, scale, bias, k, v)
            total = jax.tree.map(lambda t, g: t + eta * g, total, grads)
            now = jax.tree.map(lambda w, t: w - step_C[place] * t, start, total)
            return (start, total, place + 1), q + inner(now, scale, bias, q)

        zeros = jax.tree.map(jnp.zeros_like, layers)
        xs = jnp.arange(TIME), q_TK, k_TK, v_TK, eta_T, reset_T
        return jax.lax.scan(step, (layers, zeros, 0), xs)[1]

    heads = jax.vmap(one_head, (0, 0, 0, 1, 1, 1, 1, None), 1)
    rows = jax.vmap(heads, (None, None, None, 0, 0, 0, 0, 0))
    if reset_BT is None:
        reset_BT = jnp.zeros((2, TIME), bool)
    q, k, v, eta = tokens.q_BTHK, tokens.k_BTHK, tokens.v_BTHK, tokens.eta_BTH
    return rows(model.layers, model.scale_HK, model.bias_HK, q, k, v, eta, reset_BT)


@functools.cache
def both(form):
    """Reads, and their gradients for all inputs, beside those of the definition."""

    def run(model, tokens, step_C, reset_BT, dy):
        results = []
        for read in (lambda *args: form(*args, reset_BT=reset_BT)[0], None):
            read = read or (lambda *args: descend(*args, reset_BT))
            y, pull = jax.vjp(read, model, tokens, step_C)
            results.append((y, pull(dy)))
        return results

    return jax.jit(run)


@pytest.mark.parametrize(
    ("form", "kind", "chunk", "with_resets"),
    [
        (read_by_chunk, "mlp", 4, True),
        (read_by_chunk, "linear", 7, True),
        (read_by_chunk, "linear", 1, False),
        pytest.param(read_by_chunk, "linear", 16, False, marks=pytest.mark.slow),
        pytest.param(read_token_by_token, "mlp", 4, True, marks=pytest.mark.slow),
    ],
)
def test_equals_descent_on_the_loss(form, kind, chunk, with_resets):
    """In values and gradients; the gradients pass through every write."""
    dy = jax.random.normal(jax.random.key(9), (2, TIME, HEADS, SIZE))
    args = make_model(kind), make_tokens(), make_steps(chunk)
    actual, expected = both(form)(*args, make_resets() if with_resets else None, dy)
    near = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
    jax.tree.map(near, actual, expected)


def test_repeated_keys_and_large_rates():
    """The worst for a dual form: all scores of a chunk are equal and large."""
    tokens = make_tokens(same_key=True, rate=5.0)
    dy = jnp.ones((2, TIME, HEADS, SIZE))
    actual, expected = both(read_by_chunk)(
        make_model("linear"), tokens, make_steps(4), None, dy
    )
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-4, atol=1e-4)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale),
        actual[1],
        expected[1],
    )


def cut(tree, start, stop):
    return jax.tree.map(lambda x: x[:, start:stop], tree)


@pytest.mark.parametrize(
    ("kind", "pieces"), [("linear", (3, 1, 6, 4)), ("mlp", (1, 3, 1, 9)), ("mlp", (8, 6))]
)
def test_any_cut_equals_no_cut(kind, pieces):
    """Pieces by chunks, those of one token by the other form; from a state in mid-chunk."""
    model, tokens, step_C = make_model(kind), make_tokens(), make_steps(4)
    reset_BT = make_resets()
    by_chunk, by_token = jax.jit(read_by_chunk), jax.jit(read_token_by_token)
    _, start = by_chunk(model, cut(tokens, 0, 3), step_C)  # not the initial weights
    whole, last = by_chunk(model, tokens, step_C, start, reset_BT)
    parts, state, at = [], start, 0
    for length in pieces:
        read = by_token if length == 1 else by_chunk
        piece = slice(at, at + length)
        part, state = read(
            model, cut(tokens, at, at + length), step_C, state, reset_BT[:, piece]
        )
        parts.append(part)
        at += length
    assert at == TIME
    near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    near(jnp.concatenate(parts, 1), whole)
    jax.tree.map(near, state, last)


def test_gradients_pass_through_the_state():
    model, tokens, step_C = make_model("linear"), make_tokens(), make_steps(4)
    dy = jax.random.normal(jax.random.key(9), (2, TIME, HEADS, SIZE))

    def in_pieces(model, tokens, step_C):
        first, state = read_by_chunk(model, cut(tokens, 0, 6), step_C)
        second, _ = read_by_chunk(model, cut(tokens, 6, TIME), step_C, state)
        return jnp.concatenate([first, second], 1)

    whole = lambda *args: read_by_chunk(*args)[0]
    grads = [
        jax.jit(lambda *args, f=form: jax.vjp(f, *args)[1](dy))(model, tokens, step_C)
        for form in (in_pieces, whole)
    ]
    near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(near, *grads)


def test_recomputing_more_at_a_time_changes_nothing():
    args = make_model("linear"), make_tokens(), make_steps(2), None, make_resets()
    read = jax.jit(read_by_chunk, static_argnames="remat_chunks")
    results = [read(*args, remat_chunks=count) for count in (1, 3, 100)]
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    for other in results[1:]:
        jax.tree.map(near, other, results[0])


def test_reading_without_writing():
    """Every query meets the weights after the last write, and leaves them as they are."""
    model, tokens, step_C = make_model("mlp"), make_tokens(), make_steps(4)
    by_chunk = jax.jit(read_by_chunk, static_argnames="writes")
    for read in (4, 6):  # at a boundary and within a chunk
        _, state = by_chunk(model, cut(tokens, 0, read), step_C)
        y_BTHK, after = by_chunk(model, tokens, step_C, state, writes=False)
        jax.tree.map(np.testing.assert_array_equal, after, state)
        # a token whose rate is 0 reads the same weights where it does not change the step
        alone = cut(tokens, 0, read - 1)
        last = cut(tokens, read - 1, read)
        for t in (0, 9):
            query = last.replace(q_BTHK=tokens.q_BTHK[:, t : t + 1])
            asked = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), alone, query)
            expected = by_chunk(model, asked, step_C)[0][:, -1]
            np.testing.assert_allclose(y_BTHK[:, t], expected, rtol=1e-4, atol=1e-5)


def test_resets_without_writing():
    """After a reset the initial weights are read, and the state is that of a new document."""
    model, tokens, step_C = make_model("mlp"), make_tokens(), make_steps(4)
    by_chunk = jax.jit(read_by_chunk, static_argnames="writes")
    _, state = by_chunk(model, cut(tokens, 0, 6), step_C)
    reset_BT = jnp.zeros((2, TIME), bool).at[0, 3].set(True)
    y_BTHK, after = by_chunk(model, tokens, step_C, state, reset_BT, writes=False)
    fresh_BTHK, _ = by_chunk(model, tokens, step_C, writes=False)
    kept_BTHK, _ = by_chunk(model, tokens, step_C, state, writes=False)
    np.testing.assert_allclose(y_BTHK[0, 3:], fresh_BTHK[0, 3:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y_BTHK[0, :3], kept_BTHK[0, :3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y_BTHK[1], kept_BTHK[1], rtol=1e-5, atol=1e-6)
    assert np.abs(y_BTHK[0, 3:] - kept_BTHK[0, 3:]).max() > 1e-3
    # what is written next is the first of its document, as if the reset came with it
    again = reset_BT[:, 3:7]
    rest = cut(tokens, 0, 4)
    one, state_one = by_chunk(model, rest, step_C, after)
    two, state_two = by_chunk(model, rest, step_C, state, again)
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert state_one.origin_B.tolist() == state_two.origin_B.tolist()


def test_a_fresh_state_is_no_state():
    args = make_model("linear"), make_tokens(), make_steps(4)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    read = jax.jit(read_by_chunk)
    jax.tree.map(near, read(*args, initial_state(args[0], 2, 4)), read(*args))


def test_writes_lower_the_reconstruction_loss():
    """The same pair in every token: each read of the key comes nearer to the value."""
    model = make_model("linear")
    tokens = jax.tree.map(lambda x: jnp.broadcast_to(x[:, :1], x.shape), make_tokens(rate=0.0))
    tokens = tokens.replace(q_BTHK=tokens.k_BTHK, eta_BTH=jnp.full((2, TIME, HEADS), 0.1))
    y_BTHK, _ = jax.jit(read_by_chunk)(model, tokens, 1 / jnp.arange(1.0, 3.0))
    error_T = jnp.linalg.norm(y_BTHK - tokens.v_BTHK, axis=-1).mean((0, 2))
    assert error_T[-1] < error_T[4] < error_T[0]


def test_places_restart_with_chunks_and_documents():
    reset_BT = make_resets()
    expected = [
        [0, 1, 2, 3, 0, 0, 1, 2, 0, 1, 2, 3, 0, 1],
        [0, 1, 2, 3, 0, 1, 2, 3, 0, 0, 1, 0, 0, 1],
    ]
    assert places(4, 2, TIME, None, reset_BT).tolist() == expected
    # rotations by them are what a chunk sees: only distances within it count
    x = jnp.ones((2, TIME, 1, 4))
    turned = rope(x, places(4, 2, TIME))
    np.testing.assert_array_equal(turned[:, 0:4], turned[:, 4:8])
