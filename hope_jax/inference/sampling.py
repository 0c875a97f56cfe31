"""From logits to the next token: temperature, top-k, top-p, greedy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from hope_jax.config.check import require

# Numbers are traced as 32 bits. Below the first the likeliest token is as good as certain, and
# far below it logits overflow when they are divided; above the second all are the same.
_COLDEST, _HOTTEST = 1e-6, 3e38
_MOST = 2**31 - 1  # more than any vocabulary has


@struct.dataclass
class Sampling:
    """How the next token is drawn; build it with `sampling`.

    None switches a rule off. The numbers are traced, so that another temperature does not
    compile again; only switching a rule on or off does.
    """

    temperature: jax.Array | float | None = 1.0  # None: take the likeliest token
    top_k: jax.Array | int | None = None
    top_p: jax.Array | float | None = None


def sampling(
    temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Sampling:
    """Check the settings of a user and return them as `Sampling`.

    Temperature 0, or one below 1e-6, takes the likeliest token; then top-k and top-p change
    nothing.

    Raises:
      ValueError: a negative temperature, `top_k` below 1, or `top_p` outside (0, 1].
    """
    require(
        0 <= temperature < float("inf"),
        f"temperature is {temperature}; use 0 (take the likeliest token) or more",
    )
    require(
        top_k is None or top_k >= 1, f"top_k is {top_k}; use at least 1, or None for all tokens"
    )
    require(
        top_p is None or 0 < top_p <= 1,
        f"top_p is {top_p}; use a probability above 0 and up to 1, or None for all tokens",
    )
    if temperature < _COLDEST:
        return Sampling(temperature=None)
    top_k = None if top_k is None else min(top_k, _MOST)
    return Sampling(min(temperature, _HOTTEST), top_k, top_p)


def filter_logits(
    logits_BW: jax.Array,
    top_k: jax.Array | int | None = None,
    top_p: jax.Array | float | None = None,
) -> jax.Array:
    """Set the logits of tokens that may not be drawn to minus infinity.

    Top-k keeps the k likeliest tokens (equal ones in the order of their ids). Top-p then
    keeps the fewest likeliest tokens whose probabilities, among those that are left, add
    up to at least `top_p`.

    >>> logits_BW = filter_logits(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), top_p=0.6)
    >>> [round(p, 3) for p in jax.nn.softmax(logits_BW)[0].tolist()]
    [0.625, 0.375, 0.0]
    """
    if top_k is None and top_p is None:
        return logits_BW
    order_BW = jnp.argsort(-logits_BW, axis=-1, stable=True)
    sorted_BW = jnp.take_along_axis(logits_BW, order_BW, axis=-1)
    rank_BW = jax.lax.broadcasted_iota(jnp.int32, logits_BW.shape, 1)
    if top_k is not None:
        sorted_BW = jnp.where(rank_BW < top_k, sorted_BW, -jnp.inf)
    if top_p is not None:
        probs_BW = jax.nn.softmax(sorted_BW, axis=-1)
        before_BW = jnp.cumsum(probs_BW, axis=-1) - probs_BW
        keep_BW = (before_BW < top_p) | (rank_BW == 0)  # the likeliest token always stays
        sorted_BW = jnp.where(keep_BW, sorted_BW, -jnp.inf)
    place_BW = jnp.argsort(order_BW, axis=-1)
    return jnp.take_along_axis(sorted_BW, place_BW, axis=-1)


def sample(logits_BW: jax.Array, keys_B: jax.Array, how: Sampling) -> jax.Array:
    """Draw one token id per row, int32 `[B]`, with one random key per row.

    >>> logits_BW = jnp.array([[0.0, 2.0, 1.0]])
    >>> int(sample(logits_BW, jax.random.split(jax.random.key(0), 1), sampling(0.0))[0])
    1
    """
    if how.temperature is None:
        return jnp.argmax(logits_BW, axis=-1).astype(jnp.int32)
    logits_BW = filter_logits(logits_BW / how.temperature, how.top_k, how.top_p)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BW).astype(jnp.int32)
