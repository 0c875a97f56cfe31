"""Matrix rules in practice: matrices by the rule, everything else by AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from hope_jax.optim import checks
from hope_jax.optim.matrices import Dims, by_path, two_dimensional
from hope_jax.optim.matrices import match_rms as scale_to_rms


def matrices_and_rest(
    scale: Callable[..., optax.GradientTransformation],
    learning_rate: optax.ScalarOrSchedule,
    *,
    dims: Dims = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
    match_rms: float | None = 0.2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    rest_learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A matrix rule for the matrices of a model, AdamW for its other parameters.

    Matrices get `scale`, updates of the size that AdamW's have, decoupled weight decay and
    the learning rate, in this order. One learning rate serves both kinds.

    Args:
      scale: makes the rule, called as `scale(dims=dims)`, such as `orthogonalize` or
        `functools.partial(scale_by_delta_momentum, decay=0.95)`.
      learning_rate: number or schedule.
      dims: which parameters are matrices and along which axes, see
        `hope_jax.optim.matrices`; None for parameters that go to AdamW. By default those
        of two dimensions are matrices, embeddings and heads among them: say otherwise if
        they should not be.
      weight_decay: of both kinds, multiplied by the learning rate.
      mask: which parameters decay, as in `optax.adamw`; by default all.
      match_rms: root mean square of a matrix update before the learning rate
        (`hope_jax.optim.match_rms`), or None to leave it as `scale` makes it.
      b1, b2, eps: of AdamW.
      rest_learning_rate: of AdamW, if it is to have its own.

    Returns:
      The transformation. Its state is that of `optax.partition`, labels "matrix", "rest".

    Raises:
      ValueError: `dims` that do not fit the parameters, when it is initialised.

    Example:
      Muon for the matrix, Adam for the bias.

      >>> import jax.numpy as jnp
      >>> from hope_jax.optim.orthogonalize import orthogonalize
      >>> muon = lambda dims: optax.chain(optax.trace(0.95), orthogonalize(dims=dims))
      >>> tx = matrices_and_rest(muon, 0.1)
      >>> params = {"w": jnp.eye(2), "b": jnp.ones(2)}
      >>> state = tx.init(params)
      >>> grads = {"w": jnp.array([[5.0, 0.0], [0.0, -5.0]]), "b": jnp.array([1e-3, -1e3])}
      >>> updates, state = tx.update(grads, state, params)
      >>> print(jnp.round(updates["b"], 3), jnp.round(jnp.diag(updates["w"]), 4))
      [-0.1  0.1] [-0.0283  0.0283]
    """
    rates = {"learning_rate": learning_rate, "rest_learning_rate": rest_learning_rate}
    numbers = {n: v for n, v in rates.items() if v is not None and not callable(v)}
    checks.nonnegative("matrices_and_rest", **numbers, b1=b1, b2=b2, eps=eps)
    dims = two_dimensional if dims is None else dims
    matrix = optax.chain(
        scale(dims=dims),
        optax.identity() if match_rms is None else scale_to_rms(match_rms, dims),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    rest = optax.adamw(
        learning_rate if rest_learning_rate is None else rest_learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        mask=mask,
    )

    def labels(params):
        axes = by_path(dims, params).values()
        kinds = ["rest" if a is None else "matrix" for a in axes]
        return jax.tree.unflatten(jax.tree.structure(params), kinds)

    return optax.partition({"matrix": matrix, "rest": rest}, labels)
