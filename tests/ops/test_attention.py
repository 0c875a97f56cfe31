"""Blocked attention equals the plain masked softmax, in value and in gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.ops.attention import causal_attention, plain_attention


def tensors(batch, time, keys, heads=2, size=8, dtype=jnp.float32):
    names = jax.random.split(jax.random.key(time * 1000 + keys), 4)
    shapes = [(batch, n, heads, size) for n in (time, keys, keys, time)]
    return [
        jax.random.normal(name, shape, dtype) for name, shape in zip(names, shapes, strict=True)
    ]


@functools.cache
def both(block):
    """Value and gradients of the blocked form, each beside that of the plain one."""

    def run(q, k, v, dy, first, offset):
        results = []
        for attend in (functools.partial(causal_attention, block=block), plain_attention):
            y, pull = jax.vjp(
                lambda q, k, v, attend=attend: attend(q, k, v, first, offset), q, k, v
            )
            results.append((y, *pull(dy)))
        return list(zip(*results, strict=True))

    return jax.jit(run)


def documents(batch, time, offset):
    """First visible key of every query, for documents that start at different places."""
    starts = np.zeros((batch, time), np.int32)
    for row in range(batch):
        for start in (3 + row, 9, 10 + 2 * row):
            if start < time:
                starts[row, start:] = offset[row] + start
    return jnp.asarray(starts)


@pytest.mark.parametrize(
    ("time", "keys", "block", "resets"),
    [(16, 16, 4, True), (13, 13, 64, False), (7, 18, 4, True)],
)
def test_equals_plain(time, keys, block, resets):
    q, k, v, dy = tensors(2, time, keys)
    # the second row's queries stop short of the last keys, as in a cache with room left
    offset = jnp.array([keys - time, max(0, keys - time - 3)])
    first = documents(2, time, np.asarray(offset)) if resets else None
    for actual, expected in both(block)(q, k, v, dy, first, offset):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6)


def test_a_block_without_any_visible_key_for_one_row():
    """Row 0 starts a document where row 1 goes on, so row 0 passes blocks it cannot see."""
    q, k, v, dy = tensors(2, 16, 16)
    first = jnp.stack([jnp.where(jnp.arange(16) >= 12, 12, 0), jnp.zeros(16, jnp.int32)])
    for actual, expected in both(4)(q, k, v, dy, first, None):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6)


def test_large_scores_stay_finite():
    q, k, v, dy = tensors(1, 12, 12)
    for actual, _ in both(4)(1e4 * q, k, v, dy, None, None):
        assert np.isfinite(actual).all()


def test_bfloat16_keeps_its_type_and_nears_float32():
    q, k, v, _ = tensors(1, 12, 12)
    low = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    y = causal_attention(*low, block=4)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), plain_attention(q, k, v), atol=0.05)


def test_blocks_that_nothing_sees_are_not_computed():
    """NaN in keys above the diagonal block and before the reset reaches no output."""
    q, k, v, _ = tensors(1, 16, 16)
    first = jnp.full((1, 4), 8)
    poisoned = k.at[:, :8].set(jnp.nan).at[:, 12:].set(jnp.nan)
    values = v.at[:, :8].set(jnp.nan).at[:, 12:].set(jnp.nan)
    y = causal_attention(q[:, 8:12], poisoned, values, first, jnp.array([8]), block=4)
    expected = plain_attention(q[:, 8:12], k, v, first, jnp.array([8]))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
