r"""Delta gradient descent (Eqs. 56-57) as an optax transformation.

Gradient descent on a layer's loss is blind to what the layer answers already: its write
`-eta x u^T` is the same whatever the weights hold (Eq. 58). Delta gradient descent asks
instead for the weights nearest to the present ones whose answer to `x` is the step
`u = -dL/dy` (Eq. 56). The solution first takes away part of what the weights say about `x`,
then writes (Eq. 57). With matrices `[K, Z]`, where a layer computes `x @ W` (the transpose
of the paper's), and N inputs in the rows of X::

    A     = X^T X / N                                   (reduction="mean"; "sum": X^T X)
    S_new = mu S - P eta g                              (without momentum: S = 0)
    W_new = alpha W - P eta A W + S_new

`g` is the gradient of the loss. `P` and `eta` are what `step` chooses. This is the write of
the in-context memories (Eq. 88; `hope_jax.ops.dgd.dgd_step`), for weights of any origin.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from hope_jax.nested.paths import flatten
from hope_jax.optim import checks
from hope_jax.optim.precision import wide_type, zeros

Step = Literal["proximal", "paper", "gradient"]
Reduction = Literal["mean", "sum"]


class DgdState(NamedTuple):
    """State of `dgd`.

    Attributes:
      count: int32, updates so far; the argument of a schedule.
      momentum: `S` like the parameters, float32 at least; None without momentum.
    """

    count: jax.Array
    momentum: Any


def dgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    step: Step = "proximal",
    retention: jax.typing.ArrayLike = 1.0,
    momentum: jax.typing.ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> optax.GradientTransformationExtraArgs:
    r"""Delta gradient descent: weights are corrected, not added to (Eqs. 56-57, 88).

    `update` needs `params` and the extra argument `inputs`: a pytree with, at the path of a
    weight matrix `[..., K, Z]`, what its layer was given: `[..., K]` (one token) or
    `[..., N, K]`, with the leading axes of the weight. `hope_jax.optim.apply_with_inputs`
    collects them from a Linen module. Inputs at other paths are left alone, because the
    parameters may be a part, of a level or an optax partition, and the inputs those of the
    whole model: where you name paths yourself, `check_inputs` compares them once.
    All arithmetic is in float32 at least; updates have the type of the parameters.

    Parameters without inputs (None, or no such path: biases, scales) get the rule without
    `A W`: gradient descent with rate eta, which is what Eq. 56 becomes for a linear
    objective (Eq. 58), with the same retention and momentum. With a retention below 1,
    give scales a transformation of their own (`optax.partition`).

    The rule rests where `A W + g = 0`, not where the gradient is 0: every layer also pays
    half the squared length of its outputs, before biases. That is the paper's rule; trained
    on half a squared error, a linear layer gives half the answer. Multiplying the loss by c
    and dividing the rate by c makes it c times weaker.

    There is no `scale_by_dgd`: the rate is inside the inverse and cannot be applied after.
    For the same reason this stands last in an `optax.chain`. Only the inputs of the call
    count, so accumulated gradients (`optax.MultiSteps`, a `Level` of a longer period) need
    the inputs of all the ticks in one array.

    Args:
      learning_rate: eta, a number or a schedule. For other numbers that change, use
        `optax.inject_hyperparams(dgd)`; for one per sequence, `jax.vmap`.
      step: what eta becomes where a weight has inputs:

        * "proximal": the exact minimiser of Eq. 56, for all N inputs at once:
          `P = (I + eta A)^-1`. For one input of length l, `eta / (1 + eta l^2)`. The paper
          prints the case l = 1. The decay is stable for every eta.
        * "paper": Eq. 57 as printed, `eta / (1 + eta)` and `P = I`; the minimiser for one
          input of unit length, and unstable for long ones.
        * "gradient": eta itself and `P = I`, as Eq. 88 writes memories.
      retention: alpha in [0, 1], by which the weights are multiplied (Eq. 88). It stands
        beside the step, not inside P: the printed form `alpha I - eta' x x^T` for any eta'.
      momentum: mu in [0, 1] of Titans momentum, on the term of the gradient only; None:
        none. The paper ablates it but prints it nowhere. With it, or with a retention below
        1, a "proximal" step is not a minimiser.
      reduction: "mean" if the loss is a mean over the rows of the inputs, "sum" if it is a
        sum. For a loss that counts otherwise (a mean over sequences, say, or a layer that
        is applied twice), use "sum" and multiply inputs by the root of a row's weight.

    Returns:
      An optax transformation with state `DgdState`.

    Raises:
      ValueError: an unknown `step` or `reduction`, a number out of its range (where it is
        known when tracing), no `params` or `inputs` in `update`, or inputs that do not fit
        their weight.

    Example:
      The weights answer x with a row that the loss does not ask for (its gradient is 0).
      That row halves, the rest stays:

      >>> w, x = jnp.ones((2, 2)), jnp.array([1.0, 0.0])
      >>> rule = dgd(1.0)
      >>> updates, state = rule.update(jnp.zeros((2, 2)), rule.init(w), w, inputs=x)
      >>> print(optax.apply_updates(w, updates))
      [[0.5 0.5]
       [1.  1. ]]
    """
    checks.one_of("dgd", "step", step, get_args(Step))
    checks.one_of("dgd", "reduction", reduction, get_args(Reduction))
    rate = {} if callable(learning_rate) else {"learning_rate": learning_rate}
    shares = {"retention": retention} | ({} if momentum is None else {"momentum": momentum})
    _check_scalars(**rate, **shares)
    checks.nonnegative("dgd", **rate)
    checks.fraction("dgd", **shares)

    def init(params):
        trace = None if momentum is None else zeros(params)
        return DgdState(jnp.zeros((), jnp.int32), trace)

    def update(updates, state, params=None, *, inputs=None, **extra):
        del extra  # meant for other transformations of a chain
        if params is None:
            raise ValueError(
                "dgd decays the weights along their inputs, so it needs them: "
                "update(gradients, state, params, inputs=inputs)"
            )
        if inputs is None:
            raise ValueError(
                "dgd needs the inputs of the layers: update(gradients, state, params, "
                "inputs=inputs). hope_jax.optim.apply_with_inputs collects them from a Linen "
                "module; inputs={} gives plain gradient descent"
            )
        eta = learning_rate(state.count) if callable(learning_rate) else learning_rate
        gradients, tree = jax.tree.flatten(updates)
        weights = tree.flatten_up_to(params)
        traces = [None] * len(weights)
        if momentum is not None:
            traces = tree.flatten_up_to(state.momentum)
        changes, new_traces = [], []
        for g, w, s, x in zip(
            gradients, weights, traces, _inputs_of(params, inputs), strict=True
        ):
            change, s = _write(g, w, s, x, eta, retention, momentum, step, reduction)
            changes.append(change)
            new_traces.append(s)
        trace = None if momentum is None else tree.unflatten(new_traces)
        return tree.unflatten(changes), DgdState(optax.safe_increment(state.count), trace)

    return optax.GradientTransformationExtraArgs(init, update)


def check_inputs(params: Any, inputs: Any) -> None:
    """Raise unless all inputs belong to parameters and fit them.

    `dgd` cannot tell a name that is wrong from one of another part of the model. This can,
    given the whole of it.

    Args:
      params: all parameters, or their shapes.
      inputs: as for `dgd`.

    Raises:
      ValueError: inputs at a path that no parameter has, or of another shape.

    >>> params = {"a": {"kernel": jnp.ones((3, 2))}}
    >>> check_inputs(params, {"a": {"kernel": jnp.ones(3)}})
    >>> try:
    ...     check_inputs(params, {"a": {"kernal": jnp.ones(3)}})
    ... except ValueError as error:
    ...     print(str(error).partition(";")[0])
    inputs are at 'a/kernal', but the parameters at 'a/kernel'
    """
    weights = flatten(params)
    unknown = {path: x for path, x in flatten(inputs).items() if path not in weights}
    if unknown:
        raise ValueError(
            f"inputs are at {_some(unknown)}, but the parameters at {_some(weights)}; give "
            f"inputs the structure of the parameters, or inputs={{}} if no layer has any"
        )
    _inputs_of(params, inputs)


def _write(g, w, s, x, eta, alpha, mu, step, reduction):
    """The change of one weight `[..., K, Z]`, and its momentum."""
    kept, dtype = w.dtype, wide_type(w)
    g, w = g.astype(dtype), w.astype(dtype)
    eta, alpha = jnp.asarray(eta, dtype), jnp.asarray(alpha, dtype)
    answer = None
    if x is not None:
        x = jnp.asarray(x, dtype)
        x_NK = x if x.ndim == w.ndim else x[..., None, :]
        share = 1.0 / x_NK.shape[-2] if reduction == "mean" else 1.0
        answer = share * (jnp.swapaxes(x_NK, -1, -2) @ (x_NK @ w))
        if step == "paper":
            eta = eta / (1 + eta)
        elif step == "proximal" and s is None:
            g, answer = _shrink(x_NK, eta * share, g + answer), None
        elif step == "proximal":
            both = _shrink(x_NK, eta * share, jnp.concatenate([g, answer], axis=-1))
            g, answer = jnp.split(both, 2, axis=-1)
    s = -eta * g if mu is None else jnp.asarray(mu, dtype) * s - eta * g
    change = s - (1 - alpha) * w
    if answer is not None:
        change = change - eta * answer
    return change.astype(kept), s


def _shrink(x_NK: jax.Array, rate: jax.Array, r_KZ: jax.Array) -> jax.Array:
    """`(I + rate X^T X)^-1 R`, by the smaller of the two Gram matrices."""
    x_KN = jnp.swapaxes(x_NK, -1, -2)
    n, k = x_NK.shape[-2:]
    if n == 1:
        square = jnp.sum(x_NK * x_NK, axis=-1, keepdims=True)
        return r_KZ - x_KN * (rate / (1 + rate * square) * (x_NK @ r_KZ))
    if n < k:  # Woodbury
        return r_KZ - rate * (x_KN @ _solve(rate, x_NK, x_NK @ r_KZ))
    return _solve(rate, x_KN, r_KZ)


def _solve(rate: jax.Array, y: jax.Array, r: jax.Array) -> jax.Array:
    """`(I + rate Y Y^T)^-1 R`."""
    # Rounded to bfloat16, as matrix units do it, a Gram matrix of long inputs may leave the
    # positive definite ones, and Cholesky gives NaN.
    gram = jnp.matmul(y, jnp.swapaxes(y, -1, -2), precision=jax.lax.Precision.HIGHEST)
    eye = jnp.broadcast_to(jnp.eye(y.shape[-2], dtype=y.dtype), gram.shape)
    factor = jnp.linalg.cholesky(eye + rate * gram)
    return jax.scipy.linalg.cho_solve((factor, True), r)


def _inputs_of(params: Any, inputs: Any) -> list[jax.Array | None]:
    """Inputs in the order of the leaves of `params`, their shapes checked.

    Matched by path, because `params` may hold a part only: that of an optax partition
    (the rest masked) or that of a level.
    """
    given, weights = flatten(inputs), flatten(params)
    found = []
    for path, w in weights.items():
        x = given.get(path)
        if x is not None and not _fits(jnp.shape(x), jnp.shape(w)):
            raise ValueError(_misfit(path, jnp.shape(x), jnp.shape(w)))
        found.append(x)
    return found


def _fits(x: tuple[int, ...], w: tuple[int, ...]) -> bool:
    one, many = x == w[:-1], x[:-2] == w[:-2] and x[-1:] == w[-2:-1] and len(x) == len(w)
    return len(w) >= 2 and (one or many)


def _misfit(path: str, x: tuple[int, ...], w: tuple[int, ...]) -> str:
    start = f"inputs of {path!r} have shape {x}, but the parameter has shape {w}; "
    if len(w) < 2:
        return start + "only matrices [..., K, Z] have inputs, so give None"
    many = ", ".join(map(str, (*w[:-2], "N", w[-2])))
    return start + f"give {w[:-1]} for one token or ({many}) for N of them"


def _some(leaves: dict[str, Any]) -> str:
    return ", ".join(map(repr, list(leaves)[:3])) or "no path"


def _check_scalars(**values: Any) -> None:
    for name, value in values.items():
        if jnp.ndim(value):
            raise ValueError(
                f"dgd: {name} has shape {jnp.shape(value)}, but it is one number for all "
                f"weights; use jax.vmap for one per sequence, optax.partition for one per "
                f"group of weights"
            )
