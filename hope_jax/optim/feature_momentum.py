"""Momentum of features of the gradient (Eq. 51)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from hope_jax.optim import checks
from hope_jax.optim.preconditioned_momentum import scale_by_preconditioned_momentum

FEATURES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda g: g,
    "sign": jnp.sign,
    "sqrt": lambda g: jnp.sign(g) * jnp.sqrt(jnp.abs(g)),
    "tanh": jnp.tanh,
}


def scale_by_feature_momentum(
    feature: str | Callable[[jax.Array], jax.Array] = "sqrt",
    decay: float = 0.9,
    value: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum that is keyed by a feature map of the gradient.

    ::

        m <- decay m + P phi(g)

    Eq. 51 in the gradient's sign; phi is element-wise or of one parameter, so that
    orientation matters only to P.

    Args:
      feature: phi: "identity" (plain momentum), "sign", "sqrt" (the root with the sign
        kept: large gradients count less), "tanh" (gradients beyond one count as one; the
        only one of these that depends on a scale in a way that learning rates cannot mend),
        or a function from an array to one of its shape.
      decay: alpha.
      value: P, any optax transformation, applied after phi; by default none.

    Returns:
      The transformation; updates have the gradient's sign and type.

    Raises:
      ValueError: an unknown feature or a negative decay.

    Example:
      >>> tx = scale_by_feature_momentum("sqrt", decay=0.5)
      >>> state = tx.init(jnp.zeros(2))
      >>> for g in ([4.0, 0.0], [-9.0, 16.0]):
      ...     update, state = tx.update(jnp.array(g), state)
      >>> print(update)
      [-2.  4.]

    References:
      Behrouz et al., "Nested Learning: The Illusion of Deep Learning Architectures", 2025.
    """
    if not callable(feature):
        checks.one_of("feature momentum", "feature", feature, FEATURES)
    checks.nonnegative("feature momentum", decay=decay)
    phi = feature if callable(feature) else FEATURES[feature]
    features = optax.stateless(lambda updates, params: jax.tree.map(phi, updates))
    value = optax.identity() if value is None else value
    return scale_by_preconditioned_momentum(optax.chain(features, value), decay)
