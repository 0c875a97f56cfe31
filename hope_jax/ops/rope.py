"""Rotary position embedding."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def rope(x_BTHK: jax.Array, position_BT: jax.Array, theta: float = 10_000.0) -> jax.Array:
    """Rotate pairs of channels by angles that grow with the position.

    Channel `i` pairs with channel `i + K/2`; the pair turns by `position * theta^(-2i/K)`.
    Products of rotated queries and keys depend on the distance of their positions only.

    Args:
      x_BTHK: queries or keys; K is even.
      position_BT: integer positions in the stream.
      theta: base of the wavelengths.

    Returns:
      Rotated `x`, same shape and type; the angles are float32.
    """
    half = x_BTHK.shape[-1] // 2
    rate_K = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BTK = position_BT[..., None].astype(jnp.float32) * rate_K[None, None]
    cos_BTHK = jnp.cos(angle_BTK)[:, :, None, :]
    sin_BTHK = jnp.sin(angle_BTK)[:, :, None, :]
    a_BTHK, b_BTHK = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    turned_BTHK = jnp.concatenate(
        [a_BTHK * cos_BTHK - b_BTHK * sin_BTHK, b_BTHK * cos_BTHK + a_BTHK * sin_BTHK], axis=-1
    )
    return turned_BTHK.astype(x_BTHK.dtype)
