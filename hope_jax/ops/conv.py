"""Short views of the past, by channel, that can be stopped and continued anywhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hope_jax.ops.own_gradient import own_gradient


def causal_conv(
    x_BTD: jax.Array,
    kernel_KD: jax.Array,
    tail_BKD: jax.Array | None = None,
    reset_BT: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Convolve every channel with its own `width` taps; `kernel_KD[j]` weighs the input j ago.

    `y_t = sum_j kernel_j * x_{t-j}`, as a sum of shifted products.

    Args:
      x_BTD: inputs, any length, 0 included.
      kernel_KD: taps `(width, D)`, the current input's first.
      tail_BKD: the `width - 1` inputs before `x`, oldest first; None: zeros.
      reset_BT: True where an input is the first after a reset; taps do not reach over it.

    Returns:
      `(y_BTD, tail_BKD)`; the tail continues the stream in the next call.

    >>> y, tail = causal_conv(jnp.ones((1, 3, 1)), jnp.ones((2, 1)))
    >>> y.ravel().tolist(), tail.ravel().tolist()
    ([1.0, 2.0, 2.0], [1.0])
    """
    batch, time, dim = x_BTD.shape
    past = kernel_KD.shape[0] - 1
    if tail_BKD is None:
        tail_BKD = jnp.zeros((batch, past, dim), x_BTD.dtype)
    if tail_BKD.shape != (batch, past, dim):
        raise ValueError(
            f"tail has shape {tail_BKD.shape}; a kernel of width {past + 1} over inputs "
            f"{x_BTD.shape} needs {(batch, past, dim)}"
        )
    tail_BKD = tail_BKD.astype(x_BTD.dtype)
    if time == 0:
        return x_BTD, tail_BKD
    # S = past + time: the tail and the inputs as one stream
    x_BSD = jnp.concatenate([tail_BKD, x_BTD], axis=1)
    same = ()
    if reset_BT is not None:
        document_BT = jnp.cumsum(reset_BT, axis=1, dtype=jnp.int32)
        document_BS = jnp.pad(document_BT, ((0, 0), (past, 0)))
        same = tuple(_shifted(document_BS, lag, past) == document_BT for lag in range(past + 1))
    y_BTD = _convolved(x_BSD, kernel_KD, same)
    new_tail_BKD = x_BSD[:, time:]
    if reset_BT is not None and past > 0:
        kept_BK = document_BS[:, time:] == document_BT[:, -1:]
        new_tail_BKD = jnp.where(kept_BK[..., None], new_tail_BKD, 0)
    return y_BTD, new_tail_BKD


def _shifted(x_BS: jax.Array, lag: int, past: int) -> jax.Array:
    """For each of the last S - past places, what is `lag` before it."""
    return x_BS[:, past - lag : x_BS.shape[1] - lag]


def _tap(x_BSD: jax.Array, lag: int, past: int, same: tuple[jax.Array, ...]) -> jax.Array:
    x_BTD = _shifted(x_BSD, lag, past)
    # masked before its product with the kernel, whose gradient reads it
    return jnp.where(same[lag][..., None], x_BTD, 0) if same and lag else x_BTD


@own_gradient
def _convolved(
    x_BSD: jax.Array, kernel_KD: jax.Array, same: tuple[jax.Array, ...]
) -> jax.Array:
    """Outputs at all but the first K - 1 places.

    `same[j]` (B, T) tells where the input j before belongs to the same document; without
    resets `same` is empty. Left to autodiff, the gradient of every tap is written, masked and
    again padded, before all are added up: about twice the memory traffic.
    """
    past = kernel_KD.shape[0] - 1
    kernel_KD = kernel_KD.astype(x_BSD.dtype)
    y_BTD = _tap(x_BSD, 0, past, same) * kernel_KD[0][None, None]
    for lag in range(1, past + 1):
        y_BTD = y_BTD + _tap(x_BSD, lag, past, same) * kernel_KD[lag][None, None]
    return y_BTD


def _convolved_forward(x_BSD, kernel_KD, same):
    return _convolved(x_BSD, kernel_KD, same), (x_BSD, kernel_KD, same)


def _convolved_backward(saved, dy_BTD):
    x_BSD, kernel_KD, same = saved
    past = kernel_KD.shape[0] - 1
    both = (past, past)
    # the same convolution, back in time
    ahead_BRD = jnp.pad(dy_BTD, ((0, 0), both, (0, 0)))
    dx_BSD, d_kernel = jnp.zeros_like(x_BSD), []
    for lag in range(past + 1):
        place = slice(lag, lag + x_BSD.shape[1])
        dx_tap_BSD = ahead_BRD[:, place]
        if same and lag:
            same_BS = jnp.pad(same[lag], ((0, 0), both))[:, place]
            dx_tap_BSD = jnp.where(same_BS[..., None], dx_tap_BSD, 0)
        dx_BSD = dx_BSD + dx_tap_BSD * kernel_KD[lag].astype(x_BSD.dtype)[None, None]
        tap_BTD = _tap(x_BSD, lag, past, same)
        d_kernel.append(jnp.sum(tap_BTD * dy_BTD, axis=(0, 1), dtype=kernel_KD.dtype))
    return dx_BSD, jnp.stack(d_kernel), None


_convolved.defvjp(_convolved_forward, _convolved_backward)


def previous(
    x_BTD: jax.Array,
    last_BD: jax.Array | None = None,
    reset_BT: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The input before each (the token shift of RWKV); zero before a document's first.

    Args:
      x_BTD: inputs, any length, 0 included.
      last_BD: the input before `x`; None: zeros.
      reset_BT: True where an input is a document's first.

    Returns:
      `(previous_BTD, last_BD)`; the last input continues the stream in the next call.

    >>> before, last = previous(jnp.array([[[1.0], [2.0], [3.0]]]))
    >>> before.ravel().tolist(), last.ravel().tolist()
    ([0.0, 1.0, 2.0], [3.0])
    """
    if last_BD is None:
        last_BD = jnp.zeros_like(x_BTD, shape=(x_BTD.shape[0], x_BTD.shape[2]))
    x_BSD = jnp.concatenate([last_BD.astype(x_BTD.dtype)[:, None], x_BTD], axis=1)
    previous_BTD = x_BSD[:, :-1]
    if reset_BT is not None:
        previous_BTD = jnp.where(reset_BT[..., None], 0, previous_BTD)
    return previous_BTD, x_BSD[:, -1]
