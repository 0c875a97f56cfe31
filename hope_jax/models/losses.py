"""Next-token loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def next_token_losses(logits_BTW: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Cross entropy of every target in nats, `loss_BT`, in float32."""
    logits_BTW = logits_BTW.astype(jnp.float32)
    # a sum with one term and no lookup: the vocabulary may be in parts
    ids_BTW = jax.lax.broadcasted_iota(targets_BT.dtype, logits_BTW.shape, logits_BTW.ndim - 1)
    hit_BTW = ids_BTW == targets_BT[..., None]
    target_BT = jnp.sum(jnp.where(hit_BTW, logits_BTW, 0), axis=-1)
    return jax.nn.logsumexp(logits_BTW, axis=-1) - target_BT


def next_token_loss(logits_BTW: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Mean cross entropy in nats per token."""
    return next_token_losses(logits_BTW, targets_BT).mean()
