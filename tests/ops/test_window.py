"""Attention over a window equals a plain mask, however the text is cut."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.ops.window import Prefix, empty_cache, window_attention

TIME = 13


def tensors(time=TIME, batch=2, heads=2, size=4):
    names = jax.random.split(jax.random.key(3), 4)
    return [jax.random.normal(name, (batch, time, heads, size)) for name in names]


def resets(time=TIME):
    reset_BT = np.zeros((2, time), bool)
    reset_BT[0, 5] = reset_BT[1, 8] = reset_BT[1, 10] = True
    return jnp.asarray(reset_BT)


def masked(q, k, v, window, reset_BT=None):
    """All scores, and a mask that says the definition."""
    time = q.shape[1]
    reset_BT = jnp.zeros(q.shape[:2], bool) if reset_BT is None else reset_BT
    document_BT = jnp.cumsum(reset_BT, axis=1)
    ago_TS = jnp.arange(time)[:, None] - jnp.arange(time)[None]
    same_BTS = document_BT[:, :, None] == document_BT[:, None]
    seen_BTS = same_BTS & ((ago_TS >= 0) & (ago_TS < window))[None]
    score = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
    weight = jax.nn.softmax(jnp.where(seen_BTS[:, None], score, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bshk->bthk", weight, v)


@functools.cache
def both(window, block):
    """Value and gradients of the windowed form beside those of the mask."""

    def run(q, k, v, dy, reset):
        forms = (
            lambda *qkv: window_attention(*qkv, window, None, reset, block=block)[0],
            lambda *qkv: masked(*qkv, window, reset),
        )
        results = []
        for form in forms:
            y, pull = jax.vjp(form, q, k, v)
            results.append((y, *pull(dy)))
        return list(zip(*results, strict=True))

    return jax.jit(run)


# longer than the text, shorter than a block, one token, neither divides the other
@pytest.mark.parametrize(("window", "block"), [(20, 4), (3, 8), (1, 4), (5, 4)])
@pytest.mark.parametrize("with_resets", [False, True])
def test_equals_a_plain_mask(window, block, with_resets):
    reset_BT = resets() if with_resets else None
    for actual, expected in both(window, block)(*tensors(), reset_BT):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("window", [1, 4, 20])
@pytest.mark.parametrize("lengths", [(5, 1, 1, 6), (1,) * TIME])
def test_any_cut_equals_no_cut(window, lengths):
    read = jax.jit(functools.partial(window_attention, block=4), static_argnums=3)
    *qkv, _ = tensors()
    reset_BT = resets()
    whole, last = read(*qkv, window, None, reset_BT)
    cache, parts, start = None, [], 0
    for length in lengths:
        stop = start + length
        part, cache = read(
            *(x[:, start:stop] for x in qkv), window, cache, reset_BT[:, start:stop]
        )
        parts.append(part)
        start = stop
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, rtol=1e-5, atol=2e-6)
    jax.tree.map(np.testing.assert_array_equal, cache, last)
    assert cache.keys_BSHK.shape[1] == window


def test_rows_may_have_read_different_lengths():
    """Rows of different streams are joined and read on together, one token and several."""
    *qkv, _ = tensors()
    read = jax.jit(functools.partial(window_attention, window=4))
    whole = jax.jit(masked, static_argnums=3)(*qkv, 4)
    rows = []
    for row, length in ((0, 3), (1, 6)):
        piece = [x[row : row + 1, :length] for x in qkv]
        rows.append(read(*piece)[1])
    cache = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)
    for count in (1, 4):
        at = cache.length_B.tolist()
        piece = [
            jnp.stack([x[row, at[row] : at[row] + count] for row in range(2)]) for x in qkv
        ]
        y, cache = read(*piece, cache=cache)
        for row in range(2):
            expected = whole[row, at[row] : at[row] + count]
            np.testing.assert_allclose(y[row], expected, rtol=1e-5, atol=2e-6)


def test_a_prefix_is_seen_from_everywhere():
    """As more keys of one softmax, in value and gradient; and from token to token."""
    q, k, v, dy = tensors()
    plain, keys, values = tensors()[2], *(x[0, :3] for x in tensors()[1:3])
    reset_BT = resets()

    def read(q, k, v, plain, keys, values, cuts=()):
        cache, parts, start = None, [], 0
        for stop in (*cuts, TIME):
            part = slice(start, stop)
            y, cache = window_attention(
                q[:, part], k[:, part], v[:, part], 5, cache, reset_BT[:, part],
                prefix=Prefix(plain[:, part], keys, values), block=4,
            )  # fmt: skip
            parts.append(y)
            start = stop
        return jnp.concatenate(parts, 1)

    def one_softmax(q, k, v, plain, keys, values):
        ago_TS = jnp.arange(TIME)[:, None] - jnp.arange(TIME)[None]
        document_BT = jnp.cumsum(reset_BT, axis=1)
        same_BTS = document_BT[:, :, None] == document_BT[:, None]
        seen_BTS = same_BTS & ((ago_TS >= 0) & (ago_TS < 5))[None]
        score = jnp.where(seen_BTS[:, None], jnp.einsum("bthk,bshk->bhts", q, k), -jnp.inf)
        score = jnp.concatenate([score, jnp.einsum("bthk,phk->bhtp", plain, keys)], -1)
        weight = jax.nn.softmax(score / 2, axis=-1)  # the root of the size 4
        y = jnp.einsum("bhts,bshk->bthk", weight[..., :TIME], v)
        return y + jnp.einsum("bhtp,phk->bthk", weight[..., TIME:], values)

    args = (q, k, v, plain, keys, values)

    def value_and_grads(form):
        y, pull = jax.vjp(form, *args)
        return y, *pull(dy)

    expected = jax.jit(value_and_grads, static_argnums=0)(one_softmax)
    actual = jax.jit(value_and_grads, static_argnums=0)(read)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=3e-6)
    cut = jax.jit(functools.partial(read, cuts=(5, 6, 9, 10)))(*args)
    np.testing.assert_allclose(cut, expected[0], rtol=1e-5, atol=3e-6)


def test_gradients_pass_through_the_cache():
    *qkv, dy = tensors()

    def cut(*qkv):
        first, cache = window_attention(*(x[:, :6] for x in qkv), 4, block=4)
        return jnp.concatenate(
            [first, window_attention(*(x[:, 6:] for x in qkv), 4, cache, block=4)[0]], 1
        )

    def grads(form):
        return jax.jit(lambda *qkv: jax.vjp(form, *qkv)[1](dy))(*qkv)

    expected = grads(lambda *qkv: masked(*qkv, 4))
    for actual, wanted in zip(grads(cut), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=2e-6)


def test_a_cache_of_another_window_is_refused():
    *qkv, _ = tensors()
    with pytest.raises(ValueError, match="holds 3 tokens and the window is 4"):
        window_attention(*qkv, 4, empty_cache(2, 3, 2, 4, jnp.float32))


def test_no_score_matrix_of_the_whole_text():
    """The largest array of a forward and backward pass is linear in the length."""
    x = jax.ShapeDtypeStruct((1, 512, 1, 4), jnp.float32)
    loss = lambda q, k, v: window_attention(q, k, v, 16, block=16)[0].sum()
    jaxpr = str(jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(x, x, x))
    assert "512,512" not in jaxpr and "16,16" in jaxpr
