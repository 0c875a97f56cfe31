r"""Delta gradient descent with retention, as a recurrence on one weight matrix.

The write of every memory (Eq. 88), with Titans momentum as an option::

    S_t = mu_t S_{t-1} - eta_t x_t g_t^T
    W_t = (alpha_t I - eta_t x_t x_t^T) W_{t-1} + S_t            (momentum)
    W_t = (alpha_t I - eta_t x_t x_t^T) W_{t-1} - eta_t x_t g_t^T  (without)

`x_t` is the input of the layer, `g_t` the gradient at its output. Matrices here are
`[K, Z]` (a layer computes `x @ W`), the transpose of the paper's. `rule="gd"` drops the
`x x^T` term (the ablation "w/o DGD").

Retention decays towards zero, or as an option towards a fixed matrix W' such as the initial
weights: `alpha_t W_{t-1} + (1 - alpha_t) W'` takes the place of `alpha_t W_{t-1}`.

`dgd_step` is one token. `ChunkWrites` is the exact closed form for a chunk whose
gradients `g` were all taken at one frozen state: one unit lower triangular C x C system
(`hope_jax.ops.triangular`), everything else matmuls, and no division by the retention.
Tokens with `valid=False` change nothing, so a partial chunk is a mask. Positions where a
document starts forget what came before: the state falls back to the initial weights.
"""

from __future__ import annotations

from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.decay import decay_products, shift, shift_rows
from hope_jax.ops.own_gradient import own_gradient
from hope_jax.ops.triangular import unit_lower_solve

Rule = Literal["dgd", "gd"]


@flax.struct.dataclass
class Gates:
    """Per-token gates of a write, each `[..., T]` float32.

    Attributes:
      eta: learning rate.
      alpha: retention; 1 keeps, 0 forgets.
      mu: momentum factor, or None for a write without momentum.
      valid: bool; False makes the token a no-op. None: all valid.
    """

    eta: jax.Array
    alpha: jax.Array
    mu: jax.Array | None = None
    valid: jax.Array | None = None

    def masked(self) -> Gates:
        """Fold `valid` into gates that leave weights and momentum alone."""
        if self.valid is None:
            return self
        return Gates(
            eta=jnp.where(self.valid, self.eta, 0.0),
            alpha=jnp.where(self.valid, self.alpha, 1.0),
            mu=None if self.mu is None else jnp.where(self.valid, self.mu, 1.0),
            valid=self.valid,
        )


def dgd_step(
    w_KZ: jax.Array,
    s_KZ: jax.Array | None,
    x_K: jax.Array,
    g_Z: jax.Array,
    gates: Gates,
    rule: Rule = "dgd",
    toward_KZ: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Write one token (Eq. 88): the plain recurrence that every faster form must equal.

    Args:
      w_KZ: `[..., K, Z]` weights.
      s_KZ: momentum shaped like the weights, or None.
      x_K: `[..., K]` input of the layer.
      g_Z: `[..., Z]` gradient at the output of the layer.
      gates: gates of this token, each `[...]`.
      rule: "dgd", or "gd" without the rank-one decay.
      toward_KZ: what the weights decay to; None: zero.

    Returns:
      New weights and momentum.
    """
    gates = gates.masked()
    eta = gates.eta[..., None, None]
    gradient = x_K[..., :, None] * g_Z[..., None, :]
    new_KZ = gates.alpha[..., None, None] * w_KZ
    if toward_KZ is not None:
        new_KZ = new_KZ + (1 - gates.alpha[..., None, None]) * toward_KZ
    if rule == "dgd":
        # The rank-one form costs K Z; the matrix (alpha I - eta x x^T) would cost K^2 Z.
        read_Z = jnp.einsum("...k,...kz->...z", x_K, w_KZ)
        new_KZ = new_KZ - eta * x_K[..., :, None] * read_Z[..., None, :]
    if s_KZ is None:
        return new_KZ - eta * gradient, None
    s_KZ = gates.mu[..., None, None] * s_KZ - eta * gradient
    step = s_KZ if gates.valid is None else jnp.where(gates.valid[..., None, None], s_KZ, 0.0)
    return new_KZ + step, s_KZ


@flax.struct.dataclass
class ChunkGates:
    """Products of gates inside one chunk, shared by all matrices that it writes.

    `_CC` arrays are `[..., C, C]` (row: the reader, column: the writer), `_C` are
    `[..., C]`, `_1` are `[..., 1, 1]`.

    Attributes:
      eta_C: learning rates, 0 where not valid.
      before_CC: decay of the write at i as seen just before token r (i < r); here and in
        whatever else token r reads: just after it (i <= r), if `read_after`.
      rate_before_CC: the same times the learning rate of the reader r.
      start_C: decay of the starting weights as seen just before token r.
      end_C: decay of the write at i at the end of the chunk; 0 if a reset forgot it.
      start_end_1: decay of the starting weights at the end of the chunk.
      fresh_C: bool, True where token r reads the initial weights (a reset came before it
        in this chunk); None without resets.
      momentum: the same for the momentum, or None.
    """

    eta_C: jax.Array
    before_CC: jax.Array
    rate_before_CC: jax.Array
    start_C: jax.Array
    end_C: jax.Array
    start_end_1: jax.Array
    fresh_C: jax.Array | None
    momentum: MomentumGates | None


@flax.struct.dataclass
class MomentumGates:
    """How momentum reaches weights and momentum, beside `ChunkGates`.

    Attributes:
      before_CC: coefficient of `-eta_i x_i g_i^T` in the weights before token r.
      start_C: coefficient of the starting momentum in the weights before token r.
      end_C: coefficient of `-eta_i x_i g_i^T` in the weights at the end.
      start_end_1: coefficient of the starting momentum in the weights at the end.
      carry_C: coefficient of `-eta_i x_i g_i^T` in the momentum at the end.
      start_carry_1: coefficient of the starting momentum in the momentum at the end.
    """

    before_CC: jax.Array
    start_C: jax.Array
    end_C: jax.Array
    start_end_1: jax.Array
    carry_C: jax.Array
    start_carry_1: jax.Array


def chunk_gates(
    gates: Gates, reset_C: jax.Array | None = None, *, read_after: bool = False
) -> ChunkGates:
    """Multiply out the gates of one chunk.

    Args:
      gates: gates of the chunk, each `[..., C]` float32.
      reset_C: bool `[..., C]`; True forgets everything just before that token.
      read_after: True lets token r read the weights after its own write instead of those
        just before it. For `rule="gd"` alone: with "dgd" a write itself reads what is before.
    """
    gates = gates.masked()
    between_CC, since_C = decay_products(gates.alpha)
    if reset_C is None:
        first_C = jnp.zeros(since_C.shape, bool).at[..., 0].set(True)
        same_CC = jnp.ones_like(between_CC, bool)
        old_C = jnp.ones_like(since_C, bool)
        start_C = since_C if read_after else shift(since_C, 1.0)
        start_end = since_C[..., -1]
        fresh_C = None
    else:
        segment_C = jnp.cumsum(reset_C, axis=-1)
        same_CC = segment_C[..., :, None] == segment_C[..., None, :]
        old_C = segment_C == 0
        fresh_C = ~old_C
        first_C = reset_C.at[..., 0].set(True)
        # Decay since the start of the own document: the entry at its first token,
        # times that token's own gate.
        from_first_CC = between_CC * (first_C * gates.alpha)[..., None, :] * same_CC
        since_first_C = jnp.sum(from_first_CC, axis=-1)
        start_C = since_first_C
        if not read_after:
            start_C = jnp.where(first_C, 1.0, shift(since_first_C, 1.0))
        start_end = since_first_C[..., -1]
    live_CC = between_CC * same_CC
    before_CC = live_CC if read_after else shift_rows(between_CC) * same_CC
    momentum = None
    if gates.mu is not None:
        momentum = _momentum_gates(gates, live_CC, same_CC, old_C, read_after)
    return ChunkGates(
        eta_C=gates.eta,
        before_CC=before_CC,
        rate_before_CC=gates.eta[..., None] * before_CC,
        start_C=start_C,
        end_C=live_CC[..., -1, :],
        start_end_1=start_end[..., None, None],
        fresh_C=fresh_C,
        momentum=momentum,
    )


def _momentum_gates(gates: Gates, live_CC, same_CC, old_C, read_after: bool) -> MomentumGates:
    between_CC, since_C = decay_products(gates.mu)
    between_CC = between_CC * same_CC
    if gates.valid is not None:  # an invalid token does not apply the momentum it keeps
        live_CC = live_CC * gates.valid[..., None, :]
    weights_CC = live_CC @ between_CC
    start_C = jnp.einsum("...ri,...i->...r", live_CC, since_C * old_C)
    seen_CC, seen_C = weights_CC, start_C
    if not read_after:
        seen_CC, seen_C = shift_rows(weights_CC) * same_CC, shift(start_C, 0.0)
    return MomentumGates(
        before_CC=seen_CC,
        start_C=seen_C * old_C,
        end_C=weights_CC[..., -1, :],
        start_end_1=(start_C * old_C)[..., -1, None, None],
        carry_C=between_CC[..., -1, :],
        start_carry_1=(since_C * old_C)[..., -1, None, None],
    )


@flax.struct.dataclass
class ChunkWrites:
    """The writes of one chunk to one matrix, solved: who added what.

    Just before token r the weights are
    `start_C[r] W + sum_i x_i (before_CC[r, i] u_i + momentum...)^T`.

    Attributes:
      x_CK: inputs of the layer.
      u_CZ: rank-one coefficients of the writes; None where momentum alone writes.
      eg_CZ: `eta_i g_i`, which feed the momentum; None without momentum.
    """

    x_CK: jax.Array
    u_CZ: jax.Array | None
    eg_CZ: jax.Array | None


def solve_writes(
    x_CK: jax.Array,
    g_CZ: jax.Array,
    start_read_CZ: jax.Array | None,
    momentum_read_CZ: jax.Array | None,
    gates: ChunkGates,
    rule: Rule = "dgd",
    toward_read_CZ: jax.Array | None = None,
) -> ChunkWrites:
    """Solve the writes of one chunk (the exact closed form of Eqs. 88 and 90).

    Without momentum, `(I + diag(eta) (before * X X^T)) U = -diag(eta) (G + start X W)`.

    Args:
      x_CK: `[..., C, K]` float32 inputs of the layer.
      g_CZ: `[..., C, Z]` gradients at its output.
      start_read_CZ: `x_r W` at the starting weights of token r (the initial weights after
        a reset); at hand from the evaluation of the memory, so it is not recomputed.
        None will do for "gd".
      momentum_read_CZ: `x_r S` at the starting momentum; None without momentum, or for "gd".
      gates: from `chunk_gates`.
      rule: "dgd" or "gd".
      toward_read_CZ: `x_r W'` of what the weights decay to; None: zero.
    """
    eta_C1 = gates.eta_C[..., None]
    momentum = gates.momentum
    if rule == "gd":
        if momentum is None:
            return ChunkWrites(x_CK, -eta_C1 * g_CZ, None)
        return ChunkWrites(x_CK, None, eta_C1 * g_CZ)
    gram_CC = x_CK @ jnp.swapaxes(x_CK, -1, -2)
    eg_CZ = None
    if momentum is None:  # signs and decays on the vectors, where they cost nothing
        rhs_CZ = -eta_C1 * g_CZ - (eta_C1 * gates.start_C[..., None]) * start_read_CZ
        if toward_read_CZ is not None:
            gone_C1 = 1 - gates.start_C[..., None]
            rhs_CZ = rhs_CZ - (eta_C1 * gone_C1) * toward_read_CZ
    else:
        eg_CZ = eta_C1 * g_CZ
        decayed_CZ = _decayed(gates, start_read_CZ, toward_read_CZ)
        from_momentum_CZ = (momentum.before_CC * gram_CC) @ eg_CZ
        rhs_CZ = eta_C1 * (
            from_momentum_CZ - decayed_CZ - momentum.start_C[..., None] * momentum_read_CZ
        )
    u_CZ = unit_lower_solve(gates.rate_before_CC * gram_CC, rhs_CZ)
    return ChunkWrites(x_CK, u_CZ, eg_CZ)


def read_running(
    q_CK: jax.Array,
    start_read_CZ: jax.Array,
    momentum_read_CZ: jax.Array | None,
    writes: ChunkWrites,
    gates: ChunkGates,
    toward_read_CZ: jax.Array | None = None,
) -> jax.Array:
    """`q_r W_{r-1}` for every token of the chunk: each sees all writes before its own.

    With gates of `read_after=True`, `q_r W_r`: its own write as well.

    Args:
      q_CK: `[..., C, K]` queries.
      start_read_CZ: `q_r W` at the starting weights of token r.
      momentum_read_CZ: `q_r S` at the starting momentum; None without momentum.
      writes: from `solve_writes`.
      gates: from `chunk_gates`.
      toward_read_CZ: `q_r W'` of what the weights decay to; None: zero.
    """
    scores_CC = q_CK @ jnp.swapaxes(writes.x_CK, -1, -2)
    read_CZ = _decayed(gates, start_read_CZ, toward_read_CZ)
    if writes.u_CZ is not None:
        read_CZ = read_CZ + (gates.before_CC * scores_CC) @ writes.u_CZ
    if gates.momentum is not None:
        momentum = gates.momentum
        read_CZ = read_CZ + momentum.start_C[..., None] * momentum_read_CZ
        read_CZ = read_CZ - (momentum.before_CC * scores_CC) @ writes.eg_CZ
    return read_CZ


def _decayed(
    gates: ChunkGates, start_read_CZ: jax.Array, toward_read_CZ: jax.Array | None
) -> jax.Array:
    """What token r reads in the starting weights, which have decayed since."""
    kept_C1 = gates.start_C[..., None]
    read_CZ = kept_C1 * start_read_CZ
    return read_CZ if toward_read_CZ is None else read_CZ + (1 - kept_C1) * toward_read_CZ


def apply_writes(
    w_KZ: jax.Array,
    s_KZ: jax.Array | None,
    initial_KZ: jax.Array | None,
    writes: ChunkWrites,
    gates: ChunkGates,
    toward_KZ: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Weights and momentum at the end of the chunk.

    Args:
      w_KZ: `[..., K, Z]` weights at the start.
      s_KZ: momentum at the start, or None.
      initial_KZ: weights that a reset falls back to; unused (None) without resets.
      writes: from `solve_writes`.
      gates: from `chunk_gates`.
      toward_KZ: what the weights decay to; None: zero.
    """
    base_KZ = w_KZ
    if gates.fresh_C is not None:
        base_KZ = _fresh_weights(w_KZ, initial_KZ, gates.fresh_C[..., -1, None, None])
    if toward_KZ is None:
        base_KZ = gates.start_end_1 * base_KZ
    else:
        base_KZ = _decayed_weights(base_KZ, toward_KZ, gates.start_end_1)
    momentum = gates.momentum
    if momentum is None:
        added_CZ = gates.end_C[..., None] * writes.u_CZ
        return base_KZ + _sum_of_outer(writes.x_CK, added_CZ), None
    added_CZ = -momentum.end_C[..., None] * writes.eg_CZ
    if writes.u_CZ is not None:
        added_CZ = added_CZ + gates.end_C[..., None] * writes.u_CZ
    new_w_KZ = base_KZ + momentum.start_end_1 * s_KZ
    new_w_KZ = new_w_KZ + _sum_of_outer(writes.x_CK, added_CZ)
    carried_CZ = momentum.carry_C[..., None] * writes.eg_CZ
    carried_KZ = _sum_of_outer(writes.x_CK, carried_CZ)
    return new_w_KZ, momentum.start_carry_1 * s_KZ - carried_KZ


@own_gradient
def _fresh_weights(w_KZ: jax.Array, initial_KZ: jax.Array, fresh_11: jax.Array) -> jax.Array:
    """The initial weights in rows that are fresh; their gradient is summed only if any is."""
    return jnp.where(fresh_11, initial_KZ, w_KZ)


def _fresh_weights_forward(w_KZ, initial_KZ, fresh_11):
    return jnp.where(fresh_11, initial_KZ, w_KZ), (initial_KZ, fresh_11)


def _fresh_weights_backward(saved, d_KZ):
    initial_KZ, fresh_11 = saved
    select = lambda initial_KZ: jnp.where(fresh_11, initial_KZ, 0.0)
    pull = lambda: jax.vjp(select, initial_KZ)[1](d_KZ)[0]
    d_initial_KZ = jax.lax.cond(jnp.any(fresh_11), pull, lambda: jnp.zeros_like(initial_KZ))
    return jnp.where(fresh_11, 0.0, d_KZ), d_initial_KZ, None


_fresh_weights.defvjp(_fresh_weights_forward, _fresh_weights_backward)


@own_gradient
def _decayed_weights(w_KZ: jax.Array, toward_KZ: jax.Array, kept_11: jax.Array) -> jax.Array:
    """Weights on their way to others that all rows share."""
    return kept_11 * w_KZ + (1 - kept_11) * toward_KZ


def _decayed_weights_forward(w_KZ, toward_KZ, kept_11):
    return _decayed_weights(w_KZ, toward_KZ, kept_11), (w_KZ, toward_KZ, kept_11)


def _decayed_weights_backward(saved, d_KZ):
    w_KZ, toward_KZ, kept_11 = saved
    d_w_KZ = kept_11 * d_KZ
    d_toward_KZ = d_KZ - d_w_KZ
    if toward_KZ.shape[0] < d_KZ.shape[0]:
        d_toward_KZ = _sum_of_rows(d_toward_KZ)
    shared = [i for i, n in enumerate(kept_11.shape) if n == 1]
    d_kept_11 = jnp.sum(d_KZ * (w_KZ - toward_KZ), axis=shared, keepdims=True)
    return d_w_KZ, d_toward_KZ, d_kept_11


_decayed_weights.defvjp(_decayed_weights_forward, _decayed_weights_backward)


def _sum_of_rows(x: jax.Array) -> jax.Array:
    """Sum over the leading axis, which stays, as halves that are added to each other.

    On a CPU the compiler makes a loop of scalars of a sum over a leading axis: here ten times
    as slow.
    """
    while x.shape[0] > 1:
        half, odd = divmod(x.shape[0], 2)
        pairs = x[:half] + x[half : 2 * half]
        x = jnp.concatenate([pairs, x[-1:]]) if odd else pairs
    return x


def _sum_of_outer(x_CK: jax.Array, u_CZ: jax.Array) -> jax.Array:
    """`sum_i x_i u_i^T`; element by element where Z is 1 (see `memory.thin_matmul`)."""
    if u_CZ.shape[-1] == 1:
        return jnp.sum(x_CK * u_CZ, axis=-2)[..., None]
    return jnp.swapaxes(x_CK, -1, -2) @ u_CZ
