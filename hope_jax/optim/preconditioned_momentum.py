"""Momentum of preconditioned gradients (Eqs. 46-47)."""

from __future__ import annotations

import optax

from hope_jax.optim import checks
from hope_jax.optim.precision import in_wide_type


def scale_by_preconditioned_momentum(
    value: optax.GradientTransformation,
    decay: float = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum that associates gradients with preconditioned gradients.

    The memory m of Eq. 46 is trained by one step on `<m g^T, P>` and decays (Eq. 47)::

        m <- decay m + P g

    which is element-wise in our orientation too: a chain of `value` and `optax.trace`. Eq. 47
    in the version that prints no decay is `decay=1`. Adam's order is the other one, a
    preconditioned momentum.

    Args:
      value: makes P g from g, any optax transformation: `optax.scale_by_rms()`,
        `orthogonalize()`, `scale_by_learned_preconditioner()`.
      decay: alpha.
      nesterov: as in `optax.trace`.

    Returns:
      The transformation; updates have the gradient's sign and type. Its state is that of
      `optax.chain`: of the value, then of the trace.

    Raises:
      ValueError: a negative decay.

    Example:
      Signs of gradients, remembered.

      >>> import jax.numpy as jnp
      >>> tx = scale_by_preconditioned_momentum(optax.scale_by_sign(), decay=0.5)
      >>> state = tx.init(jnp.zeros(2))
      >>> for g in ([3.0, -2.0], [1e-3, 2e3]):
      ...     update, state = tx.update(jnp.array(g), state)
      >>> print(update)
      [1.5 0.5]

    References:
      Behrouz et al., "Nested Learning: The Illusion of Deep Learning Architectures", 2025.
    """
    checks.nonnegative("preconditioned momentum", decay=decay)
    return in_wide_type(optax.chain(value, optax.trace(decay, nesterov)))
