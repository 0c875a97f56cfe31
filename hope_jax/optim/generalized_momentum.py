"""Generalised momentum: descent on any objective of the momentum (Eqs. 35-37, 59-60)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hope_jax.optim import checks
from hope_jax.optim.precision import like, zeros

Objective = Callable[..., jax.Array]


class GeneralizedMomentumState(NamedTuple):
    """State of `scale_by_generalized_momentum`.

    Attributes:
      momentum: like the parameters, in float32 at least. Its sign is the paper's: it is
        what is added to the weights.
    """

    momentum: optax.Updates


def scale_by_generalized_momentum(
    objective: Objective,
    decay: float = 0.9,
    rate: float = 1.0,
    inner_steps: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum that is trained by gradient descent on an objective of one's own.

    The momentum is a memory of past gradients; which one follows from its objective
    (Eqs. 35-37; the generalised momentum of Eqs. 59-60, with retention by decay)::

        m <- decay m - rate d/dm objective(m, g)

    `<m, g>` gives plain momentum (Eqs. 33-34). Other rules of this package are closed forms
    for certain objectives, and are tested against this one, which differentiates. All of it
    is independent of orientation, except for what the objective does with matrices: weights
    are `[K, Z]`, transposed from the paper.

    Args:
      objective: `(m, g) -> scalar` for one parameter's momentum and gradient, both in
        float32 at least; or `(m, g, x) -> scalar`, x being the same leaf of the extra
        argument `inputs` of `update`, such as the inputs of the layer.
      decay: what remains of m.
      rate: step size.
      inner_steps: steps per update; m decays in the first one only.

    Returns:
      The transformation; its updates are -m, which has the gradient's sign.

    Raises:
      ValueError: `inner_steps` below one, a negative number, an objective that is no
        scalar, or, in `update`, `inputs` that are missing.

    Example:
      >>> tx = scale_by_generalized_momentum(lambda m, g: jnp.vdot(m, g), decay=0.5)
      >>> state = tx.init(jnp.zeros(2))
      >>> for g in ([1.0, 0.0], [0.0, 4.0]):
      ...     update, state = tx.update(jnp.array(g), state)
      >>> print(update)
      [0.5 4. ]

    References:
      Behrouz et al., "Nested Learning: The Illusion of Deep Learning Architectures", 2025.
    """
    rule = "generalized momentum"
    checks.whole(rule, inner_steps=inner_steps)
    checks.nonnegative(rule, decay=decay, rate=rate)
    parameters = inspect.signature(objective).parameters.values()
    takes_inputs = sum(p.default is p.empty for p in parameters) > 2

    def init(params: optax.Params) -> GeneralizedMomentumState:
        return GeneralizedMomentumState(zeros(params))

    def learn(m, g, *x):
        g = g.astype(m.dtype)
        shape = jax.eval_shape(objective, m, g, *x).shape
        if shape:
            raise ValueError(f"{rule}: objective has shape {shape}; make it a scalar")
        m = decay * m - rate * jax.grad(objective)(m, g, *x)
        for _ in range(inner_steps - 1):
            m = m - rate * jax.grad(objective)(m, g, *x)
        return m

    def update(
        updates: optax.Updates,
        state: GeneralizedMomentumState,
        params: optax.Params | None = None,
        *,
        inputs: Any = None,
        **extra: Any,
    ) -> tuple[optax.Updates, GeneralizedMomentumState]:
        if takes_inputs and inputs is None:
            raise ValueError(
                f"{rule}: the objective takes inputs; call update(..., inputs=tree) with a "
                f"leaf per parameter"
            )
        more = (inputs,) if takes_inputs else ()
        momentum = jax.tree.map(learn, state.momentum, updates, *more)
        made = jax.tree.map(jnp.negative, momentum)
        return like(made, updates), GeneralizedMomentumState(momentum)

    return optax.GradientTransformationExtraArgs(init, update)
