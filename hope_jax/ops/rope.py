"""Rotary position embedding."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from hope_jax.config.rope import RopeScalingConfig

_AS_BEFORE = RopeScalingConfig()


def rope(
    x_BTHK: jax.Array,
    position_BT: jax.Array,
    theta: float = 10_000.0,
    scaling: RopeScalingConfig = _AS_BEFORE,
) -> jax.Array:
    """Rotate pairs of channels by angles that grow with the position.

    Channel `i` pairs with channel `i + K/2`; the pair turns by `position * theta^(-2i/K)`.
    Products of rotated queries and keys depend on the distance of their positions only.

    Args:
      x_BTHK: queries or keys; K is even.
      position_BT: integer positions in the stream.
      theta: base of the wavelengths.
      scaling: slower turns for long contexts.

    Returns:
      Rotated `x`, same shape and type; the angles are float32.
    """
    rate_K = rates(x_BTHK.shape[-1] // 2, theta, scaling)
    angle_BTK = position_BT[..., None].astype(jnp.float32) * rate_K[None, None]
    cos_BTHK = jnp.cos(angle_BTK)[:, :, None, :]
    sin_BTHK = jnp.sin(angle_BTK)[:, :, None, :]
    a_BTHK, b_BTHK = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    turned_BTHK = jnp.concatenate(
        [a_BTHK * cos_BTHK - b_BTHK * sin_BTHK, b_BTHK * cos_BTHK + a_BTHK * sin_BTHK], axis=-1
    )
    return turned_BTHK.astype(x_BTHK.dtype)


def rates(half: int, theta: float, scaling: RopeScalingConfig = _AS_BEFORE) -> jax.Array:
    """Radians per token of `half` pairs of channels, float32, fastest first.

    >>> rates(2, 100.0).tolist()
    [1.0, 0.10000000149011612]
    >>> slower = RopeScalingConfig(factor=8.0, context=16)
    >>> print(rates(2, 100.0) / rates(2, 100.0, slower))  # of 6 and 63 tokens per turn
    [1.735941 8.      ]
    """
    rate_K = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling.factor == 1:
        return rate_K
    turns_K = scaling.context * rate_K / (2 * math.pi)  # in the context of pre-training
    kept_K = jnp.clip((turns_K - scaling.low) / (scaling.high - scaling.low), 0.0, 1.0)
    return rate_K * (kept_K + (1 - kept_K) / scaling.factor)
