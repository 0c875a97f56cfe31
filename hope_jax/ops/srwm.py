r"""A weight matrix that modifies itself (Irie et al. 2022, arXiv:2202.05780).

One matrix per head makes the output, and the query, key and rates of its own change::

    [y_t, q_t, k_t, beta_t] = W_{t-1} x_t
    W_t = W_{t-1} + sigmoid(beta_t) (W_{t-1} phi(q_t) - W_{t-1} phi(k_t)) phi(k_t)^T

with phi a softmax: the delta rule, where what is written at the key is what the matrix makes
of the query. Each of the four blocks of rows has its own beta. The initial matrix is a slow
weight.

The key depends on the matrix that the token before has written, by way of a softmax, so there
is no parallel form: T sequential steps, each of which reads the matrix twice (both values are
one product, `W (phi(q) - phi(k))`) and changes it once. The backward pass needs the matrix
before every token. It keeps one every `chunk` tokens and makes the others again.

Here matrices are transposed, `[K, O]` with `O = 3 K + 4` outputs in the order y, q, k, beta.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hope_jax.ops.even_chunks import filled_up, join_time, split_time
from hope_jax.ops.own_gradient import own_gradient
from hope_jax.ops.recompute import Remat, scan_chunks

BETAS = 4  # one for each of y, q, k and beta


def step(
    memory_BHKO: jax.Array, x_BHK: jax.Array, writes: bool | jax.Array = True
) -> tuple[jax.Array, jax.Array]:
    """Read one token, then let it change the matrix.

    Args:
      memory_BHKO: float32 matrices.
      x_BHK: one input per head.
      writes: False reads only.

    Returns:
      `(y_BHK, memory_BHKO)`, float32.
    """
    size = x_BHK.shape[-1]
    applied = lambda x_BHK: jnp.einsum("bhk,bhko->bho", x_BHK, memory_BHKO)
    made_BHO = applied(x_BHK.astype(jnp.float32))
    y_BHK, q_BHK, k_BHK, beta_BHS = jnp.split(made_BHO, [size, 2 * size, 3 * size], axis=-1)
    key_BHK = jax.nn.softmax(k_BHK)
    difference_BHO = applied(jax.nn.softmax(q_BHK) - key_BHK)
    rate_BHS = jnp.where(writes, jax.nn.sigmoid(beta_BHS), 0.0)
    rate_BHO = jnp.concatenate(
        [
            jnp.broadcast_to(rate_BHS[..., i : i + 1], (*rate_BHS.shape[:-1], width))
            for i, width in enumerate((size, size, size, BETAS))
        ],
        axis=-1,
    )
    change_BHKO = key_BHK[..., None] * (rate_BHO * difference_BHO)[..., None, :]
    return y_BHK, memory_BHKO + change_BHKO


def read_by_token(
    initial_HKO: jax.Array,
    x_BTHK: jax.Array,
    memory_BHKO: jax.Array | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool | jax.Array = True,
    *,
    chunk: int = 16,
    remat: Remat = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Read tokens one after another, each from the matrix that those before it have left.

    Args:
      initial_HKO: initial matrices, `O = 3 K + 4`.
      x_BTHK: inputs, at least one per row.
      memory_BHKO: float32 matrices to go on from; None: the initial ones.
      reset_BT: True where a row starts again from the initial matrices.
      writes: False reads without writing; resets still forget.
      chunk: tokens whose matrices the backward pass makes again together.
      remat: see `scan_chunks`, of which the chunks are these.

    Returns:
      `(y_BTHK, memory_BHKO)`, float32.

    Raises:
      ValueError: the initial matrices do not fit the inputs.

    >>> matrix = jax.random.normal(jax.random.key(0), (1, 2, 10))
    >>> x = jnp.ones((1, 3, 1, 2))
    >>> y, changed = read_by_token(matrix, x)
    >>> bool(jnp.allclose(y[0, 0, 0], x[0, 0, 0] @ matrix[0, :, :2], rtol=1e-5))
    True
    >>> y.shape, bool((changed == matrix).any())
    ((1, 3, 1, 2), False)
    """
    batch, length, heads, size = x_BTHK.shape
    if initial_HKO.shape != (heads, size, 3 * size + BETAS):
        raise ValueError(
            f"initial matrices have shape {initial_HKO.shape}; inputs {x_BTHK.shape} need "
            f"{(heads, size, 3 * size + BETAS)}"
        )
    initial_HKO = initial_HKO.astype(jnp.float32)
    if memory_BHKO is None:
        memory_BHKO = jnp.broadcast_to(initial_HKO[None], (batch, *initial_HKO.shape))
    chunk = min(chunk, length)
    # [N, C, B, ...]: tokens are scanned within a chunk
    split = lambda x: jnp.moveaxis(split_time(x, chunk), 2, 1)

    # A reset is done by the token before it, which writes the matrix anyway.
    before_BT = None
    if reset_BT is not None:
        memory_BHKO = _forget(memory_BHKO, initial_HKO, reset_BT[:, 0])
        before_BT = jnp.roll(reset_BT, -1, axis=1).at[:, -1].set(False)
    written_NC = writes & ~filled_up(length, chunk)

    def token(memory_BHKO, inputs):
        x_BHK, written, before_B = inputs
        y_BHK, memory_BHKO = step(memory_BHKO, x_BHK, written)
        if before_B is not None:
            memory_BHKO = _forget(memory_BHKO, initial_HKO, before_B)
        return memory_BHKO, y_BHK

    inputs = split(x_BTHK), written_NC, None if before_BT is None else split(before_BT)
    tokens = lambda memory_BHKO, part: jax.lax.scan(token, memory_BHKO, part)
    memory_BHKO, y_NCBHK = scan_chunks(tokens, memory_BHKO, inputs, remat)
    return join_time(jnp.moveaxis(y_NCBHK, 1, 2), length), memory_BHKO


@own_gradient
def _forget(memory_BHKO: jax.Array, initial_HKO: jax.Array, reset_B: jax.Array) -> jax.Array:
    """The initial matrices in rows that start again."""
    return jnp.where(reset_B[:, None, None, None], initial_HKO[None], memory_BHKO)


def _forget_backward(reset_B, d_BHKO):
    # The sum over rows as a product: as a sum it takes several times the rest of a step. And
    # of a choice that is differentiated, each matrix's every entry would be kept.
    d_initial_HKO = jnp.einsum("b,bhko->hko", reset_B.astype(jnp.float32), d_BHKO)
    return jnp.where(reset_B[:, None, None, None], 0.0, d_BHKO), d_initial_HKO, None


_forget.defvjp(
    lambda memory, initial, reset: (_forget(memory, initial, reset), reset), _forget_backward
)
