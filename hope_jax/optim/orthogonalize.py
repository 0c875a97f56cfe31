"""Newton-Schulz orthogonalisation: the matrix step of Muon and M3 (Eqs. 42-44)."""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax.contrib import scale_by_muon

from hope_jax.optim import checks
from hope_jax.optim.matrices import Dims, by_path

# Steepest at zero: five steps take singular values to about 0.7 ... 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)
# Converges to singular values of one where they start below sqrt(3).
CUBIC = (1.5, -0.5, 0.0)


def orthogonalize(
    steps: int = 5,
    coefficients: tuple[float, float, float] = QUINTIC,
    eps: float = 1e-8,
    dims: Dims = None,
) -> optax.GradientTransformation:
    r"""Replace every update by a nearby matrix with singular values near one.

    A step of the iteration is `X <- a X + (b A + c A A) X`, `A = X X^T`, from X of Frobenius
    norm one. With `CUBIC` it is gradient descent on the objective of Eq. 43 up to the term
    that holds X near its start; with the default it is what Muon uses. As the output of a
    linear momentum it gives Muon (Eq. 52)::

        optax.chain(optax.trace(0.95), orthogonalize(), optax.scale_by_learning_rate(0.02))

    The iteration is optax's own (`optax.contrib.scale_by_muon` without momentum). It runs in
    the type of the updates: cast them to bfloat16 to have it there.

    Args:
      steps: iterations.
      coefficients: a, b, c.
      eps: added to the norm.
      dims: which parameters are matrices, `hope_jax.optim.matrices`.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = orthogonalize(steps=20, coefficients=CUBIC)
      >>> u = {"w": jnp.array([[3.0, 0.0], [0.0, 0.2]])}
      >>> update, _ = tx.update(u, tx.init(u))
      >>> print(jnp.round(update["w"], 3))
      [[1. 0.]
       [0. 1.]]

    References:
      Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """
    checks.whole("orthogonalize", steps=steps)

    def update(updates: Any, params: Any = None) -> Any:
        checks.matrices("orthogonalize", dims, updates)
        axes = by_path(dims, updates).values()
        muon = scale_by_muon(
            ns_coeffs=coefficients,
            ns_steps=steps,
            beta=0.0,
            nesterov=False,
            eps=eps,
            weight_dimension_numbers=jax.tree.unflatten(jax.tree.structure(updates), axes),
        )
        # With beta = 0 the momentum is the update, and its old value is not read.
        made, _ = muon.update(updates, muon.init(updates))
        return jax.tree.map(lambda u, old: u.astype(old.dtype), made, updates)

    return optax.stateless(update)
