r"""Matrix memories that are written by outer products: linear attention and the delta rules.

One recurrence per head, with three gates per token::

    S_t = alpha_t S_{t-1} + k_t (beta_t v_t - removal_t S_{t-1}^T k_t)^T
    y_t = S_t^T q_t

| rule | alpha | beta | removal |
|---|---|---|---|
| linear attention (Katharopoulos et al. 2020; Eq. 15 of the paper) | 1 | 1 | none |
| retention (Sun et al. 2023, RetNet) | fixed per head | 1 | none |
| delta rule (Schlag et al. 2021; Yang et al. 2024, DeltaNet) | 1 | beta | beta |
| gated delta rule (Yang et al. 2025, Gated DeltaNet) | alpha | beta | alpha beta |
| scalar plus low rank (Hu et al. 2025, Comba) | alpha | beta | b beta |
| delta gradient descent, dot objective (Eq. 88 for the matrix of Eq. 92) | alpha | eta | eta |

`S` is `[K, V]`, the transpose of the papers' matrices. The memory starts at zero, so a
document start is a token with alpha = 0 and nothing to remove.

`step` is one token, `read_by_token` the plain recurrence, `read_by_chunk` the same function in
T / C sequential steps: inside a chunk the writes `k_i u_i^T` solve one unit lower triangular
C x C system, everything else is matmuls, and no decay is divided by. Gates, systems and
memory are float32.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.decay import decay_products, shift, shift_rows
from hope_jax.ops.even_chunks import filled_up, join_time, split_time
from hope_jax.ops.recompute import Remat, scan_chunks
from hope_jax.ops.triangular import unit_lower_solve


@flax.struct.dataclass
class Tokens:
    """What the recurrence reads at each token; `T` may be missing from every field.

    Attributes:
      q_BTHK: queries.
      k_BTHK: keys.
      v_BTHV: values.
      alpha_BTH: retention, 0 to 1; None: 1.
      beta_BTH: strength of the write; None: 1.
      removal_BTH: how much of what the key reads is removed; None: nothing. With keys of
        unit length the recurrence is stable while alpha - removal lies within -1 to 1.
    """

    q_BTHK: jax.Array
    k_BTHK: jax.Array
    v_BTHV: jax.Array
    alpha_BTH: jax.Array | None = None
    beta_BTH: jax.Array | None = None
    removal_BTH: jax.Array | None = None


def empty_memory(tokens: Tokens) -> jax.Array:
    """The memory before the first token: float32 zeros `[B, H, K, V]`."""
    batch, _, heads, size = tokens.k_BTHK.shape
    return jnp.zeros((batch, heads, size, tokens.v_BTHV.shape[-1]), jnp.float32)


def gated(
    tokens: Tokens, reset_BT: jax.Array | None = None, writes: bool | jax.Array = True
) -> Tokens:
    """Fold document starts and `writes` into the gates, which become float32.

    Args:
      tokens: tokens; gates may be missing.
      reset_BT: True where everything before is forgotten.
      writes: False leaves the memory as it is; resets still forget.
    """
    f32 = jnp.float32
    shape = tokens.k_BTHK.shape[:-1]
    gate = lambda gate_BTH: jnp.ones(shape, f32) if gate_BTH is None else gate_BTH.astype(f32)
    alpha_BTH = jnp.where(writes, gate(tokens.alpha_BTH), 1.0)
    beta_BTH = jnp.where(writes, gate(tokens.beta_BTH), 0.0)
    removal_BTH = tokens.removal_BTH
    if removal_BTH is not None:
        removal_BTH = jnp.where(writes, gate(removal_BTH), 0.0)
    if reset_BT is not None:
        alpha_BTH = jnp.where(reset_BT[..., None], 0.0, alpha_BTH)
        if removal_BTH is not None:
            removal_BTH = jnp.where(reset_BT[..., None], 0.0, removal_BTH)
    return tokens.replace(alpha_BTH=alpha_BTH, beta_BTH=beta_BTH, removal_BTH=removal_BTH)


def step(memory_BHKV: jax.Array, token: Tokens) -> tuple[jax.Array, jax.Array]:
    """Write one token, then read: what every faster form must equal.

    Args:
      memory_BHKV: float32 memory.
      token: one token, from `gated`; its fields have no time axis.

    Returns:
      `(y_BHV, memory_BHKV)`, float32.
    """
    q_BHK, k_BHK, v_BHV = (
        x.astype(jnp.float32) for x in (token.q_BTHK, token.k_BTHK, token.v_BTHV)
    )
    u_BHV = token.beta_BTH[..., None] * v_BHV
    if token.removal_BTH is not None:
        read_BHV = jnp.einsum("bhk,bhkv->bhv", k_BHK, memory_BHKV)
        u_BHV = u_BHV - token.removal_BTH[..., None] * read_BHV
    kept_BHKV = token.alpha_BTH[..., None, None] * memory_BHKV
    memory_BHKV = kept_BHKV + k_BHK[..., :, None] * u_BHV[..., None, :]
    return jnp.einsum("bhk,bhkv->bhv", q_BHK, memory_BHKV), memory_BHKV


def read_by_token(
    tokens: Tokens,
    memory_BHKV: jax.Array | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool | jax.Array = True,
) -> tuple[jax.Array, jax.Array]:
    """The plain recurrence, one token after another; see `read_by_chunk`."""
    if memory_BHKV is None:
        memory_BHKV = empty_memory(tokens)
    tokens = gated(tokens, reset_BT, writes)
    in_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), tokens)
    memory_BHKV, y = jax.lax.scan(lambda s, x: step(s, x)[::-1], memory_BHKV, in_time)
    return jnp.moveaxis(y, 0, 1), memory_BHKV


def read_by_chunk(
    tokens: Tokens,
    memory_BHKV: jax.Array | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool | jax.Array = True,
    *,
    chunk: int = 64,
    remat: Remat = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Write and read tokens chunk by chunk; the result does not depend on the chunk.

    Args:
      tokens: at least one token per row.
      memory_BHKV: float32 memory to go on from; None: empty.
      reset_BT: True where everything before is forgotten.
      writes: False reads without writing.
      chunk: tokens per chunk.
      remat: see `scan_chunks`.

    Returns:
      `(y_BTHV, memory_BHKV)`, float32: what each token reads after its own write, and the
      memory after the last.

    A key that is written again is corrected, not added up:

    >>> k = jnp.array([1.0, 0.0]) * jnp.ones((1, 3, 1, 2))
    >>> v, gate = jnp.ones((1, 3, 1, 1)), jnp.full((1, 3, 1), 0.5)
    >>> read_by_chunk(Tokens(k, k, v))[0].ravel().tolist()
    [1.0, 2.0, 3.0]
    >>> delta = Tokens(k, k, v, beta_BTH=gate, removal_BTH=gate)
    >>> read_by_chunk(delta)[0].ravel().tolist()
    [0.5, 0.75, 0.875]
    """
    length = tokens.k_BTHK.shape[1]
    if memory_BHKV is None:
        memory_BHKV = empty_memory(tokens)
    chunk = min(chunk, length)
    heads_first = lambda x: jnp.moveaxis(split_time(x, chunk), 3, 2)
    chunks = jax.tree.map(heads_first, gated(tokens, reset_BT, writes))
    if length % chunk:  # padding was filled with zeros, but an alpha of 0 forgets
        padding = filled_up(length, chunk)[:, None, None]
        chunks = chunks.replace(alpha_BTH=jnp.where(padding, 1.0, chunks.alpha_BTH))
    memory_BHKV, y_NBHCV = scan_chunks(_chunk, memory_BHKV, chunks, remat)
    return join_time(jnp.moveaxis(y_NBHCV, 2, 3), length), memory_BHKV


def _chunk(memory_BHKV: jax.Array, part: Tokens) -> tuple[jax.Array, jax.Array]:
    """One chunk in closed form; here the fields are `[B, H, C, ...]`.

    Token r finds `start_r S + sum_{i<r} before_{ri} k_i u_i^T`. What it adds, `k_r u_r^T`, is
    `u = beta v - removal (what k_r reads there)`.
    """
    q_CK, k_CK, v_CV = (x.astype(jnp.float32) for x in (part.q_BTHK, part.k_BTHK, part.v_BTHV))
    between_CC, since_C = decay_products(part.alpha_BTH)
    k_KC = jnp.swapaxes(k_CK, -1, -2)
    u_CV = part.beta_BTH[..., None] * v_CV
    if part.removal_BTH is not None:
        removal_C1 = part.removal_BTH[..., None]
        start_C1 = shift(since_C, 1.0)[..., None]
        u_CV = u_CV - (removal_C1 * start_C1) * (k_CK @ memory_BHKV)
        u_CV = unit_lower_solve(removal_C1 * shift_rows(between_CC) * (k_CK @ k_KC), u_CV)
    y_CV = since_C[..., None] * (q_CK @ memory_BHKV)
    y_CV = y_CV + (between_CC * (q_CK @ k_KC)) @ u_CV
    kept_BHKV = since_C[..., -1, None, None] * memory_BHKV
    return kept_BHKV + k_KC @ (between_CC[..., -1, :, None] * u_CV), y_CV
