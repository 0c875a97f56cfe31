"""The causal convolution: a plain loop, pieces, resets, and the empty stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.ops.conv import causal_conv


def plain(x_BTD, kernel_KD, reset_BT):
    """One tap at a time, with numpy."""
    y_BTD = np.zeros_like(x_BTD)
    for b, t in np.ndindex(*x_BTD.shape[:2]):
        for lag in range(kernel_KD.shape[0]):
            if lag > t or (lag > 0 and reset_BT[b, t - lag + 1 : t + 1].any()):
                break
            y_BTD[b, t] += kernel_KD[lag] * x_BTD[b, t - lag]
    return y_BTD


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    x_BTD = rng.normal(size=(2, 11, 3)).astype(np.float32)
    kernel_KD = rng.normal(size=(4, 3)).astype(np.float32)
    reset_BT = np.zeros((2, 11), bool)
    reset_BT[0, [0, 4, 5]] = True
    reset_BT[1, [3, 10]] = True
    return x_BTD, kernel_KD, reset_BT


@pytest.mark.parametrize("resets", [False, True])
def test_equals_the_plain_loop(example, resets):
    x_BTD, kernel_KD, reset_BT = example
    y_BTD, _ = causal_conv(x_BTD, kernel_KD, None, reset_BT if resets else None)
    expected_BTD = plain(x_BTD, kernel_KD, reset_BT & resets)
    np.testing.assert_allclose(y_BTD, expected_BTD, rtol=1e-5, atol=1e-6)


def by_matrix(x_BTD, kernel_KD, tail_BKD, reset_BT):
    """A sum over all pairs of places, which autodiff takes the gradient of."""
    past, time = kernel_KD.shape[0] - 1, x_BTD.shape[1]
    x_BSD = jnp.concatenate([tail_BKD, x_BTD], axis=1)
    document_BS = jnp.pad(jnp.cumsum(reset_BT, axis=1), ((0, 0), (past, 0)))
    lag_TS = past + np.arange(time)[:, None] - np.arange(past + time)[None]
    kernel_TSD = (
        jnp.where((lag_TS >= 0)[..., None], kernel_KD[np.clip(lag_TS, 0, past)], 0)
        * (lag_TS <= past)[..., None]
    )
    same_BTS = document_BS[:, past:, None] == document_BS[:, None]
    y_BTD = jnp.einsum("bts,tsd,bsd->btd", same_BTS, kernel_TSD, x_BSD)
    kept_BK = document_BS[:, time:] == document_BS[:, -1:]
    return y_BTD, x_BSD[:, time:] * kept_BK[..., None]


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("time", [1, 2, 11])
def test_gradients_are_those_of_a_matrix(example, time, resets):
    x_BTD, kernel_KD, reset_BT = example
    x_BTD, reset_BT = x_BTD[:, :time], reset_BT[:, :time]
    tail_BKD = np.random.default_rng(1).normal(size=(2, 3, 3)).astype(np.float32)

    def loss(convolve, reset_BT):
        def of(x_BTD, kernel_KD, tail_BKD):
            y_BTD, new_tail_BKD = convolve(x_BTD, kernel_KD, tail_BKD, reset_BT)
            return jnp.sum(jnp.sin(y_BTD)) + jnp.sum(new_tail_BKD**3)

        return jax.value_and_grad(of, argnums=(0, 1, 2))(x_BTD, kernel_KD, tail_BKD)

    found = loss(causal_conv, reset_BT if resets else None)
    expected = loss(by_matrix, reset_BT & resets)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )


def test_gradient_of_a_gradient(example):
    x_BTD, kernel_KD, reset_BT = example
    tail_BKD = np.zeros((2, 3, 3), np.float32)

    def steepness(convolve):
        def loss(kernel_KD):
            return jnp.sum(jnp.tanh(convolve(x_BTD, kernel_KD, tail_BKD, reset_BT)[0]))

        return jax.grad(lambda kernel_KD: jnp.sum(jax.grad(loss)(kernel_KD) ** 2))(kernel_KD)

    np.testing.assert_allclose(
        steepness(causal_conv), steepness(by_matrix), rtol=1e-3, atol=1e-4
    )


def test_gradients_keep_the_types_of_their_arrays(example):
    x_BTD, kernel_KD, reset_BT = example
    x_BTD = jnp.asarray(x_BTD, jnp.bfloat16)
    grads = jax.grad(
        lambda *args: causal_conv(*args, None, reset_BT)[0].astype(jnp.float32).sum(), (0, 1)
    )(x_BTD, jnp.asarray(kernel_KD))
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize("cuts", [(0, 1, 2, 7), (4,), (11,), (3, 3, 5)])
def test_pieces_equal_one_go(example, cuts):
    x_BTD, kernel_KD, reset_BT = example
    whole_BTD, whole_tail = causal_conv(x_BTD, kernel_KD, None, reset_BT)
    pieces, tail = [], None
    for start, stop in zip((0, *cuts), (*cuts, 11), strict=True):
        y_BTD, tail = causal_conv(
            x_BTD[:, start:stop], kernel_KD, tail, reset_BT[:, start:stop]
        )
        pieces.append(y_BTD)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), whole_BTD, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(tail, whole_tail)


def test_no_inputs_leave_the_tail(example):
    x_BTD, kernel_KD, reset_BT = example
    _, tail = causal_conv(x_BTD, kernel_KD)
    y_BTD, same = causal_conv(x_BTD[:, :0], kernel_KD, tail, reset_BT[:, :0])
    assert y_BTD.shape == (2, 0, 3)
    np.testing.assert_array_equal(same, tail)


def test_width_one_scales_the_input(example):
    x_BTD, kernel_KD, reset_BT = example
    y_BTD, tail = causal_conv(x_BTD, kernel_KD[:1], None, reset_BT)
    np.testing.assert_allclose(y_BTD, x_BTD * kernel_KD[0], rtol=1e-6)
    assert tail.shape == (2, 0, 3)


def test_gradient_does_not_cross_a_reset(example):
    x_BTD, kernel_KD, reset_BT = example
    grad_BTD = jax.grad(lambda x: causal_conv(x, kernel_KD, None, reset_BT)[0][0, 4:].sum())(
        x_BTD
    )
    assert not np.any(grad_BTD[0, :4])
    assert np.all(grad_BTD[0, 5:])


def test_a_tail_of_the_wrong_length_is_refused(example):
    x_BTD, kernel_KD, _ = example
    with pytest.raises(ValueError, match=r"needs \(2, 3, 3\)"):
        causal_conv(x_BTD, kernel_KD, jnp.zeros((2, 4, 3)))
