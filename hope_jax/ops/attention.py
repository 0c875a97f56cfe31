"""Causal softmax attention."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def plain_attention(
    q_BTHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHK: jax.Array,
    first_BT: jax.Array | None = None,
    offset_B: jax.Array | None = None,
) -> jax.Array:
    """Masked softmax of all scores at once.

    Query `t` of row `b` sees the keys `first[b, t] <= s <= offset[b] + t`.

    Args:
      q_BTHK: queries.
      k_BSHK: keys, S of them; for S = T queries and keys are the same tokens.
      v_BSHK: values.
      first_BT: index of the first key that a query sees; None: 0.
      offset_B: index of the key that belongs to query 0; None: S - T, that is, the
        queries are the last tokens.

    Returns:
      `y_BTHK` in the type of the queries; scores and softmax are float32.
    """
    time, keys = q_BTHK.shape[1], k_BSHK.shape[1]
    score_BHTS = jnp.einsum(
        "bthk,bshk->bhts", q_BTHK, k_BSHK, preferred_element_type=jnp.float32
    ) * (q_BTHK.shape[-1] ** -0.5)
    offset_B = jnp.full((q_BTHK.shape[0],), keys - time) if offset_B is None else offset_B
    last_BT = offset_B[:, None] + jnp.arange(time)[None]
    key_S = jnp.arange(keys)[None, None]
    seen_BTS = key_S <= last_BT[..., None]
    if first_BT is not None:
        seen_BTS &= key_S >= first_BT[..., None]
    weight_BHTS = jax.nn.softmax(jnp.where(seen_BTS[:, None], score_BHTS, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bshk->bthk", weight_BHTS.astype(v_BSHK.dtype), v_BSHK)
