"""Next-token loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def next_token_losses(logits_BTW: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Cross entropy of every target in nats, `loss_BT`, in float32."""
    logits_BTW = logits_BTW.astype(jnp.float32)
    target_BT1 = jnp.take_along_axis(logits_BTW, targets_BT[..., None], axis=-1)
    return jax.nn.logsumexp(logits_BTW, axis=-1) - target_BT1[..., 0]


def next_token_loss(logits_BTW: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Mean cross entropy in nats per token."""
    return next_token_losses(logits_BTW, targets_BT).mean()
