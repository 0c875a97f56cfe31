"""Causal softmax attention in memory linear in the length.

Queries and keys meet in square blocks of scores with an online softmax. Blocks in which
nothing is seen, above the diagonal or before the oldest reset, are not computed. The
backward pass recomputes the scores from the saved log-sum-exp.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from hope_jax.ops.own_gradient import plain_gradients_wanted

MASKED = -1e30  # finite, so that a row without a key yet stays free of NaN


def causal_attention(
    q_BTHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHK: jax.Array,
    first_BT: jax.Array | None = None,
    offset_B: jax.Array | None = None,
    *,
    block: int = 128,
) -> jax.Array:
    """Softmax attention over `first[b, t] <= s <= offset[b] + t`, block by block.

    The result and its gradient are those of `plain_attention`; for second derivatives see
    `own_gradient.plain_gradients`. Peak memory is `B H block (T + S)` scores, not `B H T S`.

    Args:
      q_BTHK: queries.
      k_BSHK: keys, S of them; for S = T queries and keys are the same tokens. Of fewer heads
        than there are of queries, each serves as many of them, one after the other.
      v_BSHK: values.
      first_BT: index of the first key that a query sees; None: 0.
      offset_B: index of the key that belongs to query 0; None: S - T, that is, the
        queries are the last tokens.
      block: queries and keys scored at a time.

    Returns:
      `y_BTHK` in the type of the queries; scores and softmax are float32.
    """
    return attention_and_sum(q_BTHK, k_BSHK, v_BSHK, first_BT, offset_B, block=block)[0]


def attention_and_sum(
    q_BTHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHK: jax.Array,
    first_BT: jax.Array | None = None,
    offset_B: jax.Array | None = None,
    *,
    block: int = 128,
) -> tuple[jax.Array, jax.Array]:
    """`causal_attention`, and the logarithm of the sum that it divides by, `[B, T, H]` float32.

    With it the result can be joined with that of attention to other keys.
    """
    batch, time, _, _ = q_BTHK.shape
    keys = k_BSHK.shape[1]
    if time <= 1 or plain_gradients_wanted():
        return _plain(q_BTHK, k_BSHK, v_BSHK, first_BT, offset_B)
    group = q_BTHK.shape[2] // k_BSHK.shape[2]
    if group > 1:
        k_BSHK, v_BSHK = (jnp.repeat(x, group, axis=2) for x in (k_BSHK, v_BSHK))
    offset_B = jnp.full((batch,), keys - time) if offset_B is None else offset_B
    first_BT = jnp.zeros((batch, time), jnp.int32) if first_BT is None else first_BT
    rows, columns = min(block, time), min(block, keys)
    q_BHTK = _pad(jnp.swapaxes(q_BTHK, 1, 2), 2, rows)
    k_BHSK = _pad(jnp.swapaxes(k_BSHK, 1, 2), 2, columns)
    v_BHSK = _pad(jnp.swapaxes(v_BSHK, 1, 2), 2, columns)
    y_BHTK, sum_BHT = _blocked(
        q_BHTK, k_BHSK, v_BHSK, _pad(first_BT, 1, rows, "edge"), offset_B, rows, columns
    )
    return jnp.swapaxes(y_BHTK, 1, 2)[:, :time], jnp.swapaxes(sum_BHT, 1, 2)[:, :time]


def plain_attention(
    q_BTHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHK: jax.Array,
    first_BT: jax.Array | None = None,
    offset_B: jax.Array | None = None,
) -> jax.Array:
    """Masked softmax of all scores at once; arguments as in `causal_attention`."""
    return _plain(q_BTHK, k_BSHK, v_BSHK, first_BT, offset_B)[0]


def _plain(q_BTHK, k_BSHK, v_BSHK, first_BT, offset_B) -> tuple[jax.Array, jax.Array]:
    batch, time, heads, size = q_BTHK.shape
    keys, group = k_BSHK.shape[1], heads // k_BSHK.shape[2]
    q_BTHGK = q_BTHK.reshape(batch, time, heads // group, group, size)
    score_BHGTS = size**-0.5 * jnp.einsum(
        "bthgk,bshk->bhgts", q_BTHGK, k_BSHK, preferred_element_type=jnp.float32
    )
    offset_B = jnp.full((batch,), keys - time) if offset_B is None else offset_B
    first_BT = jnp.zeros((batch, time), jnp.int32) if first_BT is None else first_BT
    seen_BTS = _seen(first_BT, offset_B[:, None] + jnp.arange(time)[None], jnp.arange(keys))
    score_BHGTS = jnp.where(seen_BTS[:, None, None], score_BHGTS, MASKED)
    weight_BHGTS = jax.nn.softmax(score_BHGTS, axis=-1).astype(v_BSHK.dtype)
    y_BTHGK = jnp.einsum("bhgts,bshk->bthgk", weight_BHGTS, v_BSHK)
    sum_BTHG = jnp.moveaxis(jax.nn.logsumexp(score_BHGTS, axis=-1), 3, 1)
    y_BTHK = y_BTHGK.reshape(batch, time, heads, v_BSHK.shape[-1])
    return y_BTHK, sum_BTHG.reshape(batch, time, heads)


def _seen(first_BT: jax.Array, last_BT: jax.Array, key_S: jax.Array) -> jax.Array:
    key_S = key_S[None, None]
    return (first_BT[..., None] <= key_S) & (key_S <= last_BT[..., None])


def _pad(x: jax.Array, axis: int, multiple: int, mode: str = "constant") -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, widths, mode)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _blocked(q_BHTK, k_BHSK, v_BHSK, first_BT, offset_B, rows, columns):
    return _forward(q_BHTK, k_BHSK, v_BHSK, first_BT, offset_B, rows, columns)


def _plan(first_BT, offset_B, keys, rows, columns):
    """Bounds of what each query sees, and the range of key blocks per query block."""
    batch, time = first_BT.shape
    last_BT = offset_B[:, None] + jnp.arange(time)[None]
    # one reduction over the batch for all blocks: on a mesh this is one small collective
    low_N = first_BT.reshape(batch, -1, rows).min((0, 2)) // columns
    high_N = jnp.minimum(last_BT.reshape(batch, -1, rows).max((0, 2)), keys - 1) // columns
    return last_BT, low_N, high_N + 1


def _block(x, index, size, axis):
    return jax.lax.dynamic_slice_in_dim(x, index * size, size, axis)


def _scores(q_BHTK, k_BHSK, first_BT, last_BT, start):
    """Masked scores of one block; `start` is the index of its first key."""
    score_BHTS = q_BHTK.shape[-1] ** -0.5 * jnp.einsum(
        "bhtk,bhsk->bhts", q_BHTK, k_BHSK, preferred_element_type=jnp.float32
    )
    seen_BTS = _seen(first_BT, last_BT, start + jnp.arange(k_BHSK.shape[2]))
    return jnp.where(seen_BTS[:, None], score_BHTS, MASKED)


def _forward(q_BHTK, k_BHSK, v_BHSK, first_BT, offset_B, rows, columns):
    last_BT, low_N, high_N = _plan(first_BT, offset_B, k_BHSK.shape[2], rows, columns)
    f32 = jnp.float32

    def query_block(args):
        index, low, high = args
        query_BHTK = _block(q_BHTK, index, rows, 2)
        bounds = _block(first_BT, index, rows, 1), _block(last_BT, index, rows, 1)

        def key_block(j, carry):
            max_BHT, sum_BHT, y_BHTK = carry
            key_BHSK, value_BHSK = _block(k_BHSK, j, columns, 2), _block(v_BHSK, j, columns, 2)
            score_BHTS = _scores(query_BHTK, key_BHSK, *bounds, j * columns)
            new_max_BHT = jnp.maximum(max_BHT, score_BHTS.max(-1))
            weight_BHTS = jnp.exp(score_BHTS - new_max_BHT[..., None])
            shrink_BHT = jnp.exp(max_BHT - new_max_BHT)
            sum_BHT = sum_BHT * shrink_BHT + weight_BHTS.sum(-1)
            y_BHTK = y_BHTK * shrink_BHT[..., None] + jnp.einsum(
                "bhts,bhsk->bhtk",
                weight_BHTS.astype(value_BHSK.dtype),
                value_BHSK,
                preferred_element_type=f32,
            )
            return new_max_BHT, sum_BHT, y_BHTK

        zero_BHT = jnp.zeros(query_BHTK.shape[:-1], f32)
        start = zero_BHT + MASKED, zero_BHT, jnp.zeros(query_BHTK.shape, f32)
        max_BHT, sum_BHT, y_BHTK = jax.lax.fori_loop(low, high, key_block, start)
        return (y_BHTK / sum_BHT[..., None]).astype(q_BHTK.dtype), max_BHT + jnp.log(sum_BHT)

    blocks = jnp.arange(low_N.shape[0]), low_N, high_N
    y_NBHTK, lse_NBHT = jax.lax.map(query_block, blocks)
    return _join(y_NBHTK), _join(lse_NBHT)


def _join(x_NBHT):
    """Put the blocks of queries, a leading axis, back into one axis of time."""
    x_BHNT = jnp.moveaxis(x_NBHT, 0, 2)
    return x_BHNT.reshape(*x_BHNT.shape[:2], -1, *x_BHNT.shape[4:])


def _save(q_BHTK, k_BHSK, v_BHSK, first_BT, offset_B, rows, columns):
    y_BHTK, lse_BHT = _forward(q_BHTK, k_BHSK, v_BHSK, first_BT, offset_B, rows, columns)
    return (y_BHTK, lse_BHT), (q_BHTK, k_BHSK, v_BHSK, first_BT, offset_B, y_BHTK, lse_BHT)


def _backward(rows, columns, saved, d_out):
    dy_BHTK, dlse_BHT = d_out
    q_BHTK, k_BHSK, v_BHSK, first_BT, offset_B, y_BHTK, lse_BHT = saved
    last_BT, low_N, high_N = _plan(first_BT, offset_B, k_BHSK.shape[2], rows, columns)
    scale, f32 = q_BHTK.shape[-1] ** -0.5, jnp.float32
    mean_BHT = jnp.einsum("bhtk,bhtk->bht", dy_BHTK, y_BHTK, preferred_element_type=f32)
    mean_BHT = mean_BHT - dlse_BHT  # a score moves the sum by its weight

    def query_block(carry, args):
        index, low, high = args
        query_BHTK, dout_BHTK = _block(q_BHTK, index, rows, 2), _block(dy_BHTK, index, rows, 2)
        lse_row_BHT, mean_row_BHT = (
            _block(lse_BHT, index, rows, 2),
            _block(mean_BHT, index, rows, 2),
        )
        bounds = _block(first_BT, index, rows, 1), _block(last_BT, index, rows, 1)

        def key_block(j, carry):
            dq_BHTK, dk_BHSK, dv_BHSK = carry
            key_BHSK, value_BHSK = _block(k_BHSK, j, columns, 2), _block(v_BHSK, j, columns, 2)
            score_BHTS = _scores(query_BHTK, key_BHSK, *bounds, j * columns)
            weight_BHTS = jnp.exp(score_BHTS - lse_row_BHT[..., None])
            dweight_BHTS = jnp.einsum(
                "bhtk,bhsk->bhts", dout_BHTK, value_BHSK, preferred_element_type=f32
            )
            dscore_BHTS = scale * weight_BHTS * (dweight_BHTS - mean_row_BHT[..., None])
            dscore_BHTS = dscore_BHTS.astype(q_BHTK.dtype)
            dvalue_BHSK = jnp.einsum(
                "bhts,bhtk->bhsk",
                weight_BHTS.astype(dout_BHTK.dtype),
                dout_BHTK,
                preferred_element_type=f32,
            )
            dkey_BHSK = jnp.einsum(
                "bhts,bhtk->bhsk", dscore_BHTS, query_BHTK, preferred_element_type=f32
            )
            dq_BHTK += jnp.einsum(
                "bhts,bhsk->bhtk", dscore_BHTS, key_BHSK, preferred_element_type=f32
            )
            return dq_BHTK, _add(dk_BHSK, dkey_BHSK, j), _add(dv_BHSK, dvalue_BHSK, j)

        dq_BHTK = jnp.zeros(query_BHTK.shape, f32)
        dq_BHTK, *carry = jax.lax.fori_loop(low, high, key_block, (dq_BHTK, *carry))
        return tuple(carry), dq_BHTK.astype(q_BHTK.dtype)

    zeros = jnp.zeros(k_BHSK.shape, f32), jnp.zeros(v_BHSK.shape, f32)
    blocks = jnp.arange(low_N.shape[0]), low_N, high_N
    (dk_BHSK, dv_BHSK), dq_NBHTK = jax.lax.scan(query_block, zeros, blocks)
    dq_BHTK = _join(dq_NBHTK)
    return dq_BHTK, dk_BHSK.astype(k_BHSK.dtype), dv_BHSK.astype(v_BHSK.dtype), None, None


def _add(total_BHSK, part_BHSK, index):
    """Add a block of keys in place."""
    size = part_BHSK.shape[2]
    part_BHSK = part_BHSK + _block(total_BHSK, index, size, 2)
    return jax.lax.dynamic_update_slice_in_dim(total_BHSK, part_BHSK, index * size, 2)


_blocked.defvjp(_save, _backward)
