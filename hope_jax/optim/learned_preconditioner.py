"""A preconditioner that learns to whiten gradients (Eqs. 38-41)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hope_jax.nested.paths import flatten
from hope_jax.optim import checks
from hope_jax.optim.matrices import Dims, by_path, matrix_view
from hope_jax.optim.precision import like, wide_type
from hope_jax.optim.unit import unit


class LearnedPreconditionerState(NamedTuple):
    """State of `scale_by_learned_preconditioner`.

    Attributes:
      map: by path of the parameter, the map that is applied, `[..., n, n]` with n the
        smaller of K and Z; symmetric and positive.
    """

    map: dict[str, jax.Array]


def scale_by_learned_preconditioner(
    rate: float = 0.1, damping: float = 1e-3, dims: Dims = None
) -> optax.GradientTransformation:
    r"""Precondition every matrix by a linear map that is learned from its gradients.

    The paper leaves open which inner problem gives the preconditioner (Eqs. 38-41). Here it
    is the one by which it explains Muon (Eq. 43), answered by one map for all gradients
    instead of anew for each: P g should have orthogonal rows of length one. For `[K, Z]`
    with K <= Z (else for the transpose), and u the gradient with mean square row length
    one::

        S = u u^T + damping I
        E = P S P - I,   P <- A P A,   A = I - rate E / (2 + 2 |P S P|)

    which is a descent step on `|E|^2` that is relative to P: it keeps P symmetric and
    positive, needs no inverse, and no rate up to one can make it diverge. It comes to rest
    where E is zero on average, at the inverse root of the mean of S, the one-sided form of
    Shampoo's. P is the map that is applied, P^-1 in the notation of Eq. 38.

    Args:
      rate: zeta, from 0 to 1.
      damping: keeps P below `damping ** -0.5` along what gradients do not have.
      dims: which axes of parameters are K and Z, `hope_jax.optim.matrices`.

    Returns:
      The transformation; updates are P u, with the gradient's sign and type, independent of
      its scale.

    Raises:
      ValueError: a parameter that is not a matrix, or a number out of range.

    Example:
      Rows of very different size come out alike.

      >>> tx = scale_by_learned_preconditioner(rate=0.5)
      >>> g = {"w": jnp.array([[10.0, 0.0], [0.0, 1.0]])}
      >>> state, step = tx.init(g), jax.jit(tx.update)
      >>> for _ in range(100):
      ...     update, state = step(g, state)
      >>> print(jnp.round(update["w"], 1))
      [[1. 0.]
       [0. 1.]]

    References:
      Gupta et al., "Shampoo: preconditioned stochastic tensor optimization", 2018.
      Li, "Preconditioned stochastic gradient descent", 2015.
    """
    rule = "learned preconditioner"
    checks.fraction(rule, rate=rate)
    checks.nonnegative(rule, damping=damping)

    def init(params: optax.Params) -> LearnedPreconditionerState:
        checks.matrices(rule, dims, params)
        axes, maps = by_path(dims, params), {}
        for path, x in flatten(params).items():
            view, _ = matrix_view(rule, path, x.shape, axes[path])
            *batch, K, Z = jax.eval_shape(view, x).shape
            n = min(K, Z)
            maps[path] = jnp.broadcast_to(jnp.eye(n, dtype=wide_type(x)), (*batch, n, n))
        return LearnedPreconditionerState(maps)

    def update(
        updates: optax.Updates,
        state: LearnedPreconditionerState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, LearnedPreconditionerState]:
        axes, maps, made = by_path(dims, updates), {}, []
        for path, x in flatten(updates).items():
            view, back = matrix_view(rule, path, x.shape, axes[path])
            g_KZ = view(x)
            tall = g_KZ.shape[-2] > g_KZ.shape[-1]
            u_nm, _ = unit((g_KZ.mT if tall else g_KZ).astype(wide_type(x)), (-2, -1))
            u_nm = u_nm * u_nm.shape[-2] ** 0.5
            maps[path] = _learn(state.map[path], u_nm, rate, damping)
            out_nm = maps[path] @ u_nm
            made.append(back(out_nm.mT if tall else out_nm))
        made = jax.tree.unflatten(jax.tree.structure(updates), made)
        return like(made, updates), LearnedPreconditionerState(maps)

    return optax.GradientTransformation(init, update)


def _learn(p_nn: jax.Array, u_nm: jax.Array, rate: Any, damping: Any) -> jax.Array:
    eye = jnp.broadcast_to(jnp.eye(p_nn.shape[-1], dtype=p_nn.dtype), p_nn.shape)
    seen_nm = p_nn @ u_nm
    psp_nn = seen_nm @ seen_nm.mT + damping * p_nn @ p_nn
    size = jnp.linalg.norm(psp_nn, axis=(-2, -1), keepdims=True)
    a_nn = eye - rate * (psp_nn - eye) / (2 + 2 * size)
    p_nn = a_nn @ p_nn @ a_nn
    return (p_nn + p_nn.mT) / 2  # rounding would add up
