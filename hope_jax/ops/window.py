"""Causal softmax attention over a window of the last tokens, with a cache of that size.

The mask of sliding-window attention (Beltagy et al. 2020, Longformer, arXiv:2004.05150;
Jiang et al. 2023, Mistral 7B, arXiv:2310.06825): a query sees itself and the `window - 1`
tokens before it. The cache is a ring: the token at position p of the stream is in slot
`p mod window`, so that one more token overwrites one slot and moves nothing.

A prefix of learned keys and values may be seen from everywhere (Sukhbaatar et al. 2019,
arXiv:1907.01470; the persistent memory of Titans). It has no place in the text: its scores
are those of queries that are not rotated.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.attention import MASKED, attention_and_sum


@flax.struct.dataclass
class WindowCache:
    """The last tokens of a stream; S is the window.

    Attributes:
      keys_BSHK: keys in a ring, rotated by their positions in the stream.
      values_BSHK: their values.
      length_B: int32, tokens read.
      first_B: int32, position of the first token since the last reset.
    """

    keys_BSHK: jax.Array
    values_BSHK: jax.Array
    length_B: jax.Array
    first_B: jax.Array


@flax.struct.dataclass
class Prefix:
    """P keys and values that every query sees; P >= 1.

    Attributes:
      q_BTHK: the queries as they meet the prefix, not rotated.
      k_PHK, v_PHK: keys and values, the same for all rows.
    """

    q_BTHK: jax.Array
    k_PHK: jax.Array
    v_PHK: jax.Array


def empty_cache(
    batch: int, window: int, heads: int, size: int, dtype: jnp.dtype
) -> WindowCache:
    """The cache of `batch` streams that have read nothing."""
    empty_BSHK = jnp.zeros((batch, window, heads, size), dtype)
    none_B = jnp.zeros((batch,), jnp.int32)
    return WindowCache(empty_BSHK, empty_BSHK, none_B, none_B)


def window_attention(
    q_BTHK: jax.Array,
    k_BTHK: jax.Array,
    v_BTHK: jax.Array,
    window: int,
    cache: WindowCache | None = None,
    reset_BT: jax.Array | None = None,
    *,
    prefix: Prefix | None = None,
    block: int = 128,
) -> tuple[jax.Array, WindowCache]:
    """Softmax attention of every token to the last `window` tokens of its document.

    The scores that exist at a time are `block x block` for every row and head; blocks
    outside of all windows are not computed. A single token meets the ring as it is.

    Args:
      q_BTHK: queries, rotated by their positions in the stream; T >= 1.
      k_BTHK: keys, rotated likewise.
      v_BTHK: values.
      window: tokens that a query sees, itself among them.
      cache: where to go on from; None: no row has read anything.
      reset_BT: bool, True where a document starts; None: nowhere.
      prefix: what every query sees beside the window; None: nothing.
      block: queries and keys scored at a time.

    Returns:
      `(y_BTHK, cache)`; `y` in the type of the queries, scores and softmax float32.

    Raises:
      ValueError: the cache is not of this window.

    >>> x = jnp.ones((1, 3, 1, 2))
    >>> v = jnp.array([1.0, 2.0, 4.0])[None, :, None, None] * x
    >>> window_attention(x, x, v, window=2)[0][0, :, 0, 0].tolist()
    [1.0, 1.5, 3.0]
    """
    batch, time, heads, size = k_BTHK.shape
    fresh = cache is None
    if fresh:
        cache = empty_cache(batch, window, heads, size, k_BTHK.dtype)
    if cache.keys_BSHK.shape[1] != window:
        raise ValueError(
            f"the cache holds {cache.keys_BSHK.shape[1]} tokens and the window is {window}"
        )
    position_BT = cache.length_B[:, None] + jnp.arange(time, dtype=jnp.int32)[None]
    first_BT = jnp.broadcast_to(cache.first_B[:, None], (batch, time))
    if reset_BT is not None:
        start_BT = jnp.where(reset_BT, position_BT, 0)
        first_BT = jax.lax.cummax(jnp.maximum(first_BT, start_BT), axis=1)
    new = cache.replace(length_B=cache.length_B + time, first_B=first_BT[:, -1])
    if time == 1 and not fresh:
        new = new.replace(
            keys_BSHK=_put(cache.keys_BSHK, k_BTHK, cache.length_B % window),
            values_BSHK=_put(cache.values_BSHK, v_BTHK, cache.length_B % window),
        )
        return _with_prefix(*_read_ring(q_BTHK, new), prefix), new

    seen_BT = jnp.maximum(first_BT, position_BT - (window - 1))
    if fresh:
        # the stream starts here, so the ring turns by a number that is known
        k_BSHK, v_BSHK, old = k_BTHK, v_BTHK, 0
        turn = lambda x: jnp.roll(_last(x, window), time % window, axis=1)
    else:
        # in the order of time: S = window + time keys, of which the first is at `length - S`
        k_BSHK = jnp.concatenate([_turn(cache.keys_BSHK, -cache.length_B), k_BTHK], axis=1)
        v_BSHK = jnp.concatenate([_turn(cache.values_BSHK, -cache.length_B), v_BTHK], axis=1)
        old = window
        turn = lambda x: _turn(x[:, time:], new.length_B)
        seen_BT = seen_BT - cache.length_B[:, None] + window
    offset_B = jnp.full((batch,), old, jnp.int32)
    y_BTHK, sum_BTH = attention_and_sum(q_BTHK, k_BSHK, v_BSHK, seen_BT, offset_B, block=block)
    y_BTHK = _with_prefix(y_BTHK, sum_BTH, prefix)
    return y_BTHK, new.replace(keys_BSHK=turn(k_BSHK), values_BSHK=turn(v_BSHK))


def _with_prefix(y_BTHK: jax.Array, sum_BTH: jax.Array, prefix: Prefix | None) -> jax.Array:
    """Join the softmax over the window, whose sum is `exp(sum)`, with the prefix's scores."""
    if prefix is None:
        return y_BTHK
    score_BTHP = y_BTHK.shape[-1] ** -0.5 * jnp.einsum(
        "bthk,phk->bthp", prefix.q_BTHK, prefix.k_PHK, preferred_element_type=jnp.float32
    )
    total_BTH = jnp.logaddexp(sum_BTH, jax.nn.logsumexp(score_BTHP, axis=-1))
    weight_BTHP = jnp.exp(score_BTHP - total_BTH[..., None]).astype(y_BTHK.dtype)
    rest_BTH1 = jnp.exp(sum_BTH - total_BTH)[..., None].astype(y_BTHK.dtype)
    return rest_BTH1 * y_BTHK + jnp.einsum("bthp,phk->bthk", weight_BTHP, prefix.v_PHK)


def _read_ring(q_BTHK: jax.Array, cache: WindowCache) -> tuple[jax.Array, jax.Array]:
    """The last token of each row reads all slots that hold a token of its document.

    Returns what it reads, and the logarithm of its softmax's sum.
    """
    keys_BSHK, values_BSHK = cache.keys_BSHK, cache.values_BSHK
    window = keys_BSHK.shape[1]
    score_BHTS = q_BTHK.shape[-1] ** -0.5 * jnp.einsum(
        "bthk,bshk->bhts", q_BTHK, keys_BSHK, preferred_element_type=jnp.float32
    )
    last_B = cache.length_B - 1
    age_BS = (last_B[:, None] - jnp.arange(window, dtype=jnp.int32)[None]) % window
    seen_BS = last_B[:, None] - age_BS >= cache.first_B[:, None]
    score_BHTS = jnp.where(seen_BS[:, None, None], score_BHTS, MASKED)
    weight_BHTS = jax.nn.softmax(score_BHTS, axis=-1).astype(values_BSHK.dtype)
    sum_BTH = jnp.swapaxes(jax.nn.logsumexp(score_BHTS, axis=-1), 1, 2)
    return jnp.einsum("bhts,bshk->bthk", weight_BHTS, values_BSHK), sum_BTH


def _put(ring_BSHK: jax.Array, x_B1HK: jax.Array, slot_B: jax.Array) -> jax.Array:
    put = lambda ring, x, slot: jax.lax.dynamic_update_slice_in_dim(ring, x, slot, 0)
    return jax.vmap(put)(ring_BSHK, x_B1HK.astype(ring_BSHK.dtype), slot_B)


def _turn(x_BSHK: jax.Array, places_B: jax.Array) -> jax.Array:
    return jax.vmap(lambda x, places: jnp.roll(x, places, axis=0))(x_BSHK, places_B)


def _last(x_BTHK: jax.Array, count: int) -> jax.Array:
    """The last `count` tokens, behind zeros where there are fewer."""
    missing = max(0, count - x_BTHK.shape[1])
    return jnp.pad(x_BTHK, ((0, 0), (missing, 0), (0, 0), (0, 0)))[:, -count:]
