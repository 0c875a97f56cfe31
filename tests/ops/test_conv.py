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
