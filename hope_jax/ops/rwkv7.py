r"""The delta rule with a decay and a rate of its own for every channel: the memory of RWKV-7.

Peng et al. 2025, "RWKV-7 'Goose' with Expressive Dynamic State Evolution", arXiv:2503.14456.
One recurrence per head, with products of vectors by element::

    S_t = diag(w_t) S_{t-1} - (a_t kappa_t) (S_{t-1}^T kappa_t)^T + k_t v_t^T
    y_t = S_t^T r_t

`S` is `[K, V]`, the transpose of the paper's. Every channel of the key has its decay `w` and,
in `a`, the part that is removed of what the removal key `kappa` reads. With `w` and `a` equal
over the channels and `kappa = k` this is the gated delta rule of
`hope_jax.ops.linear_recurrence` (alpha = w, removal = a).

`step` is one token, `read_by_token` the plain recurrence, `read_by_chunk` the same function in
T / C sequential steps. Inside a chunk, with `W_r` the product of the decays of tokens 1 to r::

    u_r = S_{r-1}^T kappa_r
    S_r = diag(W_r) S_0 + sum_{i <= r} diag(W_r / W_i) (k_i v_i^T - (a_i kappa_i) u_i^T)

so the `u` solve one unit lower triangular C x C system, and everything else is matmuls. For
these `W_r / W_i` has to be a factor of the reader times one of the writer, which are
`W_r / W_m` and `W_m / W_i` with m the middle of the chunk, from sums of logarithms. That is
safe because the decays of RWKV-7 are bounded, log w > -exp(-0.5) = -0.607: in a chunk of C a
factor is at most e^(0.304 C), e^9.7 for the default of 32 tokens, and nowhere near what
float32 holds until C is 128, where the products that are masked out reach e^78. The products
that count are at most 1, and their relative error is that of an exponent, about C times 4e-8.
A document start is no decay (its logarithm would be infinite) but a mask.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.even_chunks import join_time, split_time
from hope_jax.ops.linear_recurrence import empty_memory
from hope_jax.ops.recompute import Remat, scan_chunks
from hope_jax.ops.triangular import unit_lower_solve


@flax.struct.dataclass
class Tokens:
    """What the recurrence reads at each token; `T` may be missing from every field.

    Attributes:
      r_BTHK: receptances, which read (the queries of other models).
      log_w_BTHK: logarithm of each channel's decay, at most 0. By chunk, the number of tokens
        in a chunk times it must stay above -80; -0.607 is the least that RWKV-7 has.
      k_BTHK: keys that are written (the paper's replacement keys).
      v_BTHV: values.
      kappa_BTHK: removal keys, of unit length.
      a_BTHK: in-context rate of each channel, 0 to 1. A transition is similar to the symmetric
        `diag(w) - z z^T` with `z = sqrt(a) kappa`: its eigenvalues lie within -1 to 1.
    """

    r_BTHK: jax.Array
    log_w_BTHK: jax.Array
    k_BTHK: jax.Array
    v_BTHV: jax.Array
    kappa_BTHK: jax.Array
    a_BTHK: jax.Array


def step(
    memory_BHKV: jax.Array, token: Tokens, reset_B: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Write one token, then read: what every faster form must equal.

    Args:
      memory_BHKV: float32 memory.
      token: one token; its fields have no time axis.
      reset_B: True where everything before is forgotten.

    Returns:
      `(y_BHV, memory_BHKV)`, float32.
    """
    token = jax.tree.map(lambda x: x.astype(jnp.float32), token)
    if reset_B is not None:
        memory_BHKV = jnp.where(reset_B[:, None, None, None], 0.0, memory_BHKV)
    u_BHV = jnp.einsum("bhk,bhkv->bhv", token.kappa_BTHK, memory_BHKV)
    removed_BHK = token.a_BTHK * token.kappa_BTHK
    memory_BHKV = (
        jnp.exp(token.log_w_BTHK)[..., None] * memory_BHKV
        + token.k_BTHK[..., None] * token.v_BTHV[..., None, :]
        - removed_BHK[..., None] * u_BHV[..., None, :]
    )
    return jnp.einsum("bhk,bhkv->bhv", token.r_BTHK, memory_BHKV), memory_BHKV


def written(tokens: Tokens, writes: bool | jax.Array) -> Tokens:
    """Tokens of which those without `writes` leave the memory as it is."""
    only = lambda x: jnp.where(writes, x, jnp.zeros_like(x))
    return tokens.replace(
        log_w_BTHK=only(tokens.log_w_BTHK),
        k_BTHK=only(tokens.k_BTHK),
        a_BTHK=only(tokens.a_BTHK),
    )


def read_by_token(
    tokens: Tokens,
    memory_BHKV: jax.Array | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool | jax.Array = True,
) -> tuple[jax.Array, jax.Array]:
    """The plain recurrence, one token after another; see `read_by_chunk`."""
    if memory_BHKV is None:
        memory_BHKV = empty_memory(tokens)
    inputs = written(tokens, writes), reset_BT
    in_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), inputs)
    memory_BHKV, y = jax.lax.scan(lambda s, x: step(s, *x)[::-1], memory_BHKV, in_time)
    return jnp.moveaxis(y, 0, 1), memory_BHKV


def read_by_chunk(
    tokens: Tokens,
    memory_BHKV: jax.Array | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool | jax.Array = True,
    *,
    chunk: int = 32,
    remat: Remat = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Write and read tokens chunk by chunk; the result does not depend on the chunk.

    Args:
      tokens: at least one token per row.
      memory_BHKV: float32 memory to go on from; None: empty.
      reset_BT: True where everything before is forgotten.
      writes: False reads without writing; resets still forget.
      chunk: tokens per chunk; for its limit see `Tokens.log_w_BTHK`.
      remat: see `scan_chunks`.

    Returns:
      `(y_BTHV, memory_BHKV)`, float32: what each token reads after its own write, and the
      memory after the last.

    One channel is halved at every token and the other is kept:

    >>> ones = jnp.ones((1, 3, 1, 2))
    >>> halving = jnp.log(ones * jnp.array([0.5, 1.0]))
    >>> for_first, for_second = ones * jnp.array([1.0, 0.0]), ones * jnp.array([0.0, 1.0])
    >>> def sums(key):
    ...     y, _ = read_by_chunk(Tokens(key, halving, key, ones[..., :1], key, 0 * ones))
    ...     return y.round(6).ravel().tolist()
    >>> sums(for_first), sums(for_second)
    ([1.0, 1.5, 1.75], [1.0, 2.0, 3.0])
    """
    length = tokens.k_BTHK.shape[1]
    if memory_BHKV is None:
        memory_BHKV = empty_memory(tokens)
    chunk = min(chunk, length)
    # padding with zeros writes nothing, removes nothing and keeps everything
    heads_first = lambda x: jnp.moveaxis(split_time(x, chunk), 3, 2)
    parts = jax.tree.map(heads_first, written(tokens, writes))
    document_NBC = None
    if reset_BT is not None:  # documents are counted within each chunk
        document_NBC = jnp.cumsum(split_time(reset_BT, chunk), 2, jnp.int32)
    memory_BHKV, y_NBHCV = scan_chunks(_chunk, memory_BHKV, (parts, document_NBC), remat)
    return join_time(jnp.moveaxis(y_NBHCV, 2, 3), length), memory_BHKV


def _chunk(
    memory_BHKV: jax.Array, inputs: tuple[Tokens, jax.Array | None]
) -> tuple[jax.Array, jax.Array]:
    """One chunk in closed form; here the fields are `[B, H, C, ...]`.

    Rows and columns called Z are those of kappa, or of k, and after them those of r, or of
    `-a kappa`: 2 C in all.
    """
    part, document_BC = inputs
    part = jax.tree.map(lambda x: x.astype(jnp.float32), part)
    kappa_CK, v_CV = part.kappa_BTHK, part.v_BTHV
    size = v_CV.shape[-2]

    # logarithms of W_r / W_m; kappa reads before its own token's decay
    since_CK = jnp.cumsum(part.log_w_BTHK, axis=-2)
    middle_1K = since_CK[..., size // 2, None, :]
    since_CK = since_CK - middle_1K
    before_CK = since_CK - part.log_w_BTHK
    until_CK = jnp.exp(-since_CK)
    reads_ZK = jnp.concatenate(
        [kappa_CK * jnp.exp(before_CK), part.r_BTHK * jnp.exp(since_CK)], axis=-2
    )
    writes_ZK = jnp.concatenate(
        [part.k_BTHK * until_CK, -part.a_BTHK * kappa_CK * until_CK], axis=-2
    )
    seen_ZZ, reaches_ZV, arrives_ZK, kept = _visible(size, document_BC)
    memory_BHKV = jnp.swapaxes(jnp.exp(middle_1K), -1, -2) * memory_BHKV
    scores_ZZ = jnp.where(seen_ZZ, reads_ZK @ jnp.swapaxes(writes_ZK, -1, -2), 0.0)
    found_ZV = reads_ZK @ memory_BHKV
    if document_BC is not None:
        found_ZV = jnp.where(reaches_ZV, found_ZV, 0.0)
        writes_ZK = jnp.where(arrives_ZK, writes_ZK, 0.0)
        memory_BHKV = jnp.where(kept, memory_BHKV, 0.0)

    of_kappa_CZ, of_r_CZ = scores_ZZ[..., :size, :], scores_ZZ[..., size:, :]
    u_CV = found_ZV[..., :size, :] + of_kappa_CZ[..., :size] @ v_CV
    u_CV = unit_lower_solve(-of_kappa_CZ[..., size:], u_CV)
    written_ZV = jnp.concatenate([v_CV, u_CV], axis=-2)
    y_CV = found_ZV[..., size:, :] + of_r_CZ @ written_ZV

    memory_BHKV = memory_BHKV + jnp.swapaxes(writes_ZK, -1, -2) @ written_ZV
    to_end_K1 = jnp.swapaxes(jnp.exp(since_CK[..., -1:, :]), -1, -2)
    return to_end_K1 * memory_BHKV, y_CV


def _visible(size: int, document_BC: jax.Array | None):
    """What sees what: `(reader sees writer, the chunk's start, the end sees writer or start)`.

    With an axis for the heads; only the first where there are no documents.
    """
    row_CC, column_CC = jnp.indices((size, size))
    before_CC, until_CC = row_CC > column_CC, row_CC >= column_CC
    seen_ZZ = jnp.block([[before_CC, before_CC], [until_CC, until_CC]])
    if document_BC is None:
        return seen_ZZ[None, None], None, None, None
    document_BZ = jnp.tile(document_BC, (1, 2))
    same_BZZ = document_BZ[:, :, None] == document_BZ[:, None, :]
    last_B1 = document_BC[:, -1:]
    return (
        (same_BZZ & seen_ZZ[None])[:, None],
        (document_BZ == 0)[:, None, :, None],
        (document_BZ == last_B1)[:, None, :, None],
        (last_B1 == 0)[:, None, :, None],
    )
