"""Delta momentum: a momentum that forgets along what it is about to learn (Eqs. 48-49)."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import optax

from hope_jax.optim import checks
from hope_jax.optim.matrices import Dims, map_matrices
from hope_jax.optim.mixed import matrices_and_rest
from hope_jax.optim.precision import like, widen, zeros
from hope_jax.optim.unit import unit

_STEPS = {"normalized": 0.5, "proximal": 1.0, "literal": 1.0}


class DeltaMomentumState(NamedTuple):
    """State of `scale_by_delta_momentum`.

    Attributes:
      momentum: like the parameters, in float32 at least; its sign is the gradient's.
      value: state of the transformation that makes the value.
    """

    momentum: optax.Updates
    value: optax.OptState


def scale_by_delta_momentum(
    decay: float = 0.9,
    step: Literal["normalized", "proximal", "literal"] = "normalized",
    delta: float | None = None,
    value: optax.GradientTransformation | None = None,
    side: Literal["input", "output"] = "input",
    dims: Dims = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum that learns by the delta rule, with the gradient as key and value.

    The momentum m is a linear memory that minimises the L2 objective of Eq. 48, for one
    step of gradient descent and with decay (Eq. 49). For a weight matrix `[K, Z]`, applied
    as `x @ W`, and its gradient g::

        m <- (decay I - c g g^T) m + P g

    Eq. 49 is the transpose of it, with the opposite sign and the learning rate inside m.
    Along directions that the gradient holds now, the momentum lets go of what it had before;
    elsewhere it decays slowly. `g g^T` is not built if `g^T m` is smaller.

    The paper has c = 1. That depends on the scale of gradients: m diverges if they are much
    larger than one, and is plain momentum if they are much smaller. So c is by default
    relative to the gradient's norm, which is that of the paper for gradients of norm one
    and `delta=1`.

    Args:
      decay: alpha, what remains of m in all directions.
      step: how large c is. "normalized": `delta / |g|^2`, Frobenius norm, so that the
        eigenvalues of `c g g^T` are in [0, delta] for any scale. "proximal":
        `delta / (1 + delta |g|^2)`, the exact minimiser of Eq. 48 with a proximal term if g
        has rank one; it stays below one, and small gradients forget nothing. "literal":
        `delta`, which is Eq. 49 with the default.
      delta: see `step`; by default 0.5 for "normalized", else 1.
      value: makes P g from g, any optax transformation (`optax.scale_by_rms()`); g itself
        by default.
      side: "input" as above, or "output": the factor is `decay I - c g^T g`, to the right
        of m, as an earlier version of the paper has it.
      dims: which axes of parameters are K and Z, `hope_jax.optim.matrices`.

    Returns:
      The transformation; updates have the gradient's sign and type.

    Raises:
      ValueError: a parameter that is not a matrix, an unknown step or side, a negative
        number, or `delta` above one with "normalized".

    Example:
      The second gradient is along the first and contradicts it; only delta momentum turns.

      >>> import jax.numpy as jnp
      >>> tx = scale_by_delta_momentum(decay=0.9, delta=1.0)
      >>> old = optax.trace(0.9)
      >>> w = {"w": jnp.zeros((2, 1))}
      >>> state, old_state = tx.init(w), old.init(w)
      >>> for g in ([[2.0], [0.0]], [[-1.0], [0.0]]):
      ...     update, state = tx.update({"w": jnp.array(g)}, state)
      ...     plain, old_state = old.update({"w": jnp.array(g)}, old_state)
      >>> print(f"{update['w'][0, 0]:.2f} {plain['w'][0, 0]:.2f}")
      -1.20 0.80

    References:
      Behrouz et al., "Nested Learning: The Illusion of Deep Learning Architectures", 2025.
    """
    rule = "delta momentum"
    checks.one_of(rule, "step", step, _STEPS)
    checks.one_of(rule, "side", side, ("input", "output"))
    delta = _STEPS[step] if delta is None else delta
    checks.nonnegative(rule, decay=decay, delta=delta)
    if step == "normalized" and not isinstance(delta, jax.core.Tracer) and delta > 1:
        raise ValueError(
            f"{rule}: delta is {delta}, which forgets more than there is; use at most 1 with "
            f"step='normalized'"
        )
    value_tx = optax.with_extra_args_support(optax.identity() if value is None else value)

    def init(params: optax.Params) -> DeltaMomentumState:
        checks.matrices(rule, dims, params)
        return DeltaMomentumState(zeros(params), value_tx.init(widen(params)))

    def write(m_KZ, g_KZ, v_KZ):
        unit_KZ, norm = unit(g_KZ.astype(m_KZ.dtype), (-2, -1))
        if step == "normalized":
            forget = delta
        elif step == "proximal":
            forget = 1 / (1 + 1 / (delta * norm**2))  # finite if the norm is not
        else:
            forget = delta * norm**2
        overlap = _overlap(unit_KZ, m_KZ) if side == "input" else _overlap_right(unit_KZ, m_KZ)
        return decay * m_KZ - forget * overlap + v_KZ

    def update(
        updates: optax.Updates,
        state: DeltaMomentumState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, DeltaMomentumState]:
        values, value_state = value_tx.update(
            widen(updates), state.value, widen(params), **extra
        )
        momentum = map_matrices(rule, dims, write, state.momentum, updates, values)
        return like(momentum, updates), DeltaMomentumState(momentum, value_state)

    return optax.GradientTransformationExtraArgs(init, update)


def delta_momentum(
    learning_rate: optax.ScalarOrSchedule,
    decay: float = 0.9,
    step: Literal["normalized", "proximal", "literal"] = "normalized",
    delta: float | None = None,
    value: optax.GradientTransformation | None = None,
    side: Literal["input", "output"] = "input",
    *,
    dims: Dims = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
    match_rms: float | None = 0.2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Delta momentum for matrices and AdamW for the rest, with one learning rate.

    Args:
      learning_rate: number or schedule.
      decay, step, delta, value, side: see `scale_by_delta_momentum`.
      dims, weight_decay, mask, match_rms, b1, b2, eps: see `matrices_and_rest`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = delta_momentum(0.1)
      >>> params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
      >>> state = tx.init(params)
      >>> loss = lambda p: jnp.sum((jnp.ones((1, 2)) @ p["w"] + p["b"]) ** 2)
      >>> update, grad = jax.jit(tx.update), jax.jit(jax.grad(loss))
      >>> for _ in range(100):
      ...     updates, state = update(grad(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True
    """
    scale = functools.partial(
        scale_by_delta_momentum, decay=decay, step=step, delta=delta, value=value, side=side
    )
    return matrices_and_rest(
        scale,
        learning_rate,
        dims=dims,
        weight_decay=weight_decay,
        mask=mask,
        match_rms=match_rms,
        b1=b1,
        b2=b2,
        eps=eps,
    )


def _overlap(g_KZ: jax.Array, m_KZ: jax.Array) -> jax.Array:
    """`g g^T m`, through the smaller of `g g^T` and `g^T m`."""
    t_ZK = g_KZ.mT
    rows, columns = g_KZ.shape[-2:]
    return (g_KZ @ t_ZK) @ m_KZ if rows < columns else g_KZ @ (t_ZK @ m_KZ)


def _overlap_right(g_KZ: jax.Array, m_KZ: jax.Array) -> jax.Array:
    """`m g^T g`."""
    return _overlap(g_KZ.mT, m_KZ.mT).mT
