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


def legal_set_losses(logits_BTW: jax.Array, legal_BT: jax.Array, count: int) -> jax.Array:
    """Cross entropy of the question which tokens may come next, `loss_BT` in nats, float32.

    Every token is a yes or no of its own, a logistic of its score (Bhattamishra et al. 2020,
    Section 3, with cross entropy in place of the squared error); the mean over tokens.

    Args:
      logits_BTW: scores.
      legal_BT: int32, bit n set where token n may come next.
      count: tokens that there are, at most 31; later scores are not asked for.
    """
    legal_BTN = _bits(legal_BT, count)
    logits_BTN = logits_BTW[..., :count].astype(jnp.float32)
    signed_BTN = jnp.where(legal_BTN, logits_BTN, -logits_BTN)
    return jax.nn.softplus(-signed_BTN).mean(axis=-1)


def legal_set_right(logits_BTW: jax.Array, legal_BT: jax.Array, count: int) -> jax.Array:
    """Where the tokens with a score above zero are those that may come next, bool `[B, T]`."""
    return ((logits_BTW[..., :count] > 0) == _bits(legal_BT, count)).all(axis=-1)


def _bits(legal_BT: jax.Array, count: int) -> jax.Array:
    places = jnp.arange(count, dtype=legal_BT.dtype)
    return (legal_BT[..., None] >> places.reshape(*(1,) * legal_BT.ndim, count)) & 1 == 1


def next_token_loss(logits_BTW: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Mean cross entropy in nats per token."""
    return next_token_losses(logits_BTW, targets_BT).mean()
