"""Root-mean-square normalisation."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hope_jax.layers.linear import constant
from hope_jax.ops.recompute import recomputed


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """`scale * x / rms(x)` over the last axis, in float32; the result has the type of `x`."""
    return recomputed(functools.partial(_rms_norm, eps=eps))(x, scale)


def _rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * inverse * jnp.broadcast_to(scale, x.shape)).astype(x.dtype)


class RMSNorm(nn.Module):
    """`rms_norm` with a learned scale that starts at one."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = constant(self, "scale", x.shape[-1:], ("embed",), 1.0)
        return rms_norm(x, scale, self.eps)
