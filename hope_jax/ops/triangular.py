"""Unit lower triangular systems by recursive block inversion.

The closed form of a chunk of delta-rule writes (`hope_jax.ops.dgd`) needs one C x C
system per chunk. Text repeats itself, and repeated keys make the system as ill
conditioned as it gets: the product form of (I + N)^-1 by squarings cancels huge
binomials there. Blocks that double in size keep fp32 accuracy and are log2(C) levels of
batched matmuls, which suits matrix units.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hope_jax.ops.own_gradient import own_gradient

_BASE = 8  # blocks this small are inverted row by row, vectorised over all systems


def unit_lower_inverse(n_CC: jax.Array) -> jax.Array:
    """Invert `I + N` for strictly lower triangular `N`.

    With the matrix split in halves, `inv21 = -inv22 N21 inv11`.

    Args:
      n_CC: `[..., C, C]` float32; only the part strictly below the diagonal is read.

    Returns:
      `(I + N)^-1`, the same shape, unit lower triangular.

    >>> import jax.numpy as jnp
    >>> unit_lower_inverse(jnp.array([[0.0, 0.0], [3.0, 0.0]])).tolist()
    [[1.0, 0.0], [-3.0, 1.0]]
    """
    *lead, size, _ = n_CC.shape
    padded = max(_BASE, 1 << (size - 1).bit_length())
    if padded != size:
        pad = [(0, 0)] * len(lead) + [(0, padded - size)] * 2
        return unit_lower_inverse(jnp.pad(n_CC, pad))[..., :size, :size]
    tiles = jnp.stack([_tile(n_CC, i, i, _BASE) for i in range(size // _BASE)])
    inverses = list(_invert_rows(tiles))
    block = _BASE
    while block < size:
        inverses = [
            _join(inverses[i], inverses[i + 1], _tile(n_CC, i + 1, i, block))
            for i in range(0, len(inverses), 2)
        ]
        block *= 2
    return inverses[0]


@own_gradient
def unit_lower_solve(n_CC: jax.Array, rhs_CZ: jax.Array) -> jax.Array:
    """Solve `(I + N) U = R` for strictly lower triangular `N`.

    Args:
      n_CC: `[..., C, C]` float32; only the part strictly below the diagonal is read.
      rhs_CZ: `[..., C, Z]` right-hand sides, the same leading shape.

    Returns:
      `U`, shaped like `rhs_CZ`. The gradient reuses the inverse of the forward pass.
    """
    return unit_lower_inverse(n_CC) @ rhs_CZ


def _solve_forward(n_CC, rhs_CZ):
    inverse_CC = unit_lower_inverse(n_CC)
    u_CZ = inverse_CC @ rhs_CZ
    return u_CZ, (inverse_CC, u_CZ)


def _solve_backward(saved, du_CZ):
    inverse_CC, u_CZ = saved
    drhs_CZ = jnp.swapaxes(inverse_CC, -1, -2) @ du_CZ
    return jnp.tril(-(drhs_CZ @ jnp.swapaxes(u_CZ, -1, -2)), -1), drhs_CZ


unit_lower_solve.defvjp(_solve_forward, _solve_backward)


def _tile(n_CC: jax.Array, row: int, column: int, block: int) -> jax.Array:
    return n_CC[..., row * block : (row + 1) * block, column * block : (column + 1) * block]


def _invert_rows(n_bb: jax.Array) -> jax.Array:
    """Forward substitution on small blocks, with all blocks along the last axis."""
    size = n_bb.shape[-1]
    columns = jnp.moveaxis(n_bb.reshape(-1, size, size), 0, -1)
    eye = jnp.eye(size, dtype=n_bb.dtype)[..., None]
    rows = []
    for r in range(size):
        row = jnp.broadcast_to(eye[r], (size, columns.shape[-1]))
        for j in range(r):
            row = row - columns[r, j][None] * rows[j]
        rows.append(row)
    return jnp.moveaxis(jnp.stack(rows), -1, 0).reshape(n_bb.shape)


def _join(inv11: jax.Array, inv22: jax.Array, n21: jax.Array) -> jax.Array:
    inv21 = -(inv22 @ (n21 @ inv11))
    upper = jnp.concatenate([inv11, jnp.zeros_like(inv11)], axis=-1)
    return jnp.concatenate([upper, jnp.concatenate([inv21, inv22], axis=-1)], axis=-2)
