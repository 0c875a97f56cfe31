r"""M3, multi-scale momentum Muon (Algorithm 1), as two levels of momentum.

Two momenta summarise the gradients at two periods, both are orthogonalised, and the weights
move along their weighted sum: the independent Continuum Memory System (Eq. 74) in an
optimizer. Here the momenta are what that sentence says: parameters of two levels of the
engine `hope_jax.nested`, with periods of one update and of `period` updates, each trained by
gradient descent on `-<m, g>`.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hope_jax.nested import Level, Levels, LevelsState
from hope_jax.optim import checks
from hope_jax.optim.matrices import Dims
from hope_jax.optim.mixed import matrices_and_rest
from hope_jax.optim.orthogonalize import QUINTIC, orthogonalize
from hope_jax.optim.precision import in_wide_type


class M3State(NamedTuple):
    """State of `scale_by_m3` and `scale_by_m3_literal`.

    Attributes:
      memories: parameters of the levels: `fast` and `slow` momentum, and `square`, the
        second moment of the gradient, where the rule has one. Trees like the parameters, in
        float32 at least.
      levels: state of the levels; holds the gradient summed since the slow one's boundary;
        `()` without parameters.
      slow_step: the slow momentum orthogonalised, constant between boundaries.
    """

    memories: dict[str, Any]
    levels: LevelsState | tuple[()]
    slow_step: Any


def scale_by_m3(
    b1: float = 0.9,
    b2: float = 0.95,
    b3: float = 0.5,
    alpha: float = 0.2,
    period: int = 8,
    *,
    second_moment: Literal["gradient", "none"] = "gradient",
    nesterov: bool = True,
    steps: int = 5,
    coefficients: tuple[float, float, float] = QUINTIC,
    eps: float = 1e-8,
    dims: Dims = None,
) -> optax.GradientTransformation:
    r"""M3 for training: averages where Algorithm 1 has sums.

    With NS the orthogonalisation and `g_t` the gradient::

        M1 <- b1 M1 + (1 - b1) g_t                        every update
        V  <- b2 V + (1 - b2) g_t^2                       every update
        M2 <- b3 M2 + (1 - b3) mean of the last `period` gradients, every `period` updates
        update = (NS(M1) + alpha NS(M2)) / (sqrt(V) + eps)

    The slow step is zero in the first period and lags by one, as in the paper. Departures:
    sums that never decay make the paper's step shrink like one over the square root of
    time; averages do not. The size of the update is that of one over the gradient, as in the
    paper, so that something has to set it: `match_rms`, as in `m3`.

    Args:
      b1, b2, b3: averaging of the fast momentum, the second moment, the slow momentum.
      alpha: weight of the slow step.
      period: updates per step of the slow momentum.
      second_moment: "gradient" to divide as Algorithm 1 does, or "none", which is Muon with
        a second momentum: updates of the size of the matrix, and less memory.
      nesterov: orthogonalise `b1 M1 + (1 - b1) g_t` in place of M1.
      steps, coefficients, eps: Newton-Schulz iteration, `orthogonalize`; `eps` is also added
        to the root of the second moment.
      dims: which parameters are matrices, `hope_jax.optim.matrices`.

    Example:
      >>> from hope_jax.optim import match_rms
      >>> tx = optax.chain(scale_by_m3(period=2), match_rms(0.5), optax.scale(-0.1))
      >>> @jax.jit
      ... def step(w, state):  # towards 2 I
      ...     updates, state = tx.update({"w": w["w"] - 2 * jnp.eye(3)}, state)
      ...     return optax.apply_updates(w, updates), state
      >>> w = {"w": jnp.eye(3)}
      >>> state = tx.init(w)
      >>> for _ in range(60):
      ...     w, state = step(w, state)
      >>> bool(jnp.abs(w["w"] - 2 * jnp.eye(3)).max() < 0.2)
      True

    References:
      Behrouz et al., "Nested Learning", 2025, Algorithm 1 and Eq. 75.
      Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """
    rule = "scale_by_m3"
    checks.average(rule, b1=b1, b2=b2, b3=b3)
    checks.nonnegative(rule, alpha=alpha, eps=eps)
    checks.whole(rule, period=period, steps=steps)
    checks.one_of(rule, "second_moment", second_moment, ("none", "gradient"))
    levels = [Level("fast", 1, _average(b1), "fast")]
    if second_moment == "gradient":
        levels.append(Level("square", 1, _average(b2), "square"))
    levels.append(Level("slow", period, _average(b3), "slow", reduction="mean"))
    project = orthogonalize(steps, coefficients, eps, dims)

    def direction(memories, grads, count, slow_step):
        fast = memories["fast"]
        if nesterov:
            fast = jax.tree.map(lambda m, g: _like(b1 * m + (1 - b1) * g, m), fast, grads)
        total = jax.tree.map(
            lambda o1, o2: _like(o1 + alpha * o2, o1), _apply(project, fast), slow_step
        )
        if second_moment == "none":
            return total
        unbiased = 1 - jnp.asarray(b2, jnp.float32) ** count
        return jax.tree.map(
            lambda o, v: _like(o / (jnp.sqrt(v / unbiased) + eps), o), total, memories["square"]
        )

    return _m3(rule, Levels(tuple(levels)), project, direction, dims)


def scale_by_m3_literal(
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9,
    alpha: float = 1.0,
    period: int = 16,
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = QUINTIC,
    eps: float = 1e-8,
    dims: Dims = None,
) -> optax.GradientTransformation:
    r"""Algorithm 1 as printed, for comparison; train with `scale_by_m3`.

    Sums without decay::

        M1 <- M1 + b1 g_t,  V <- V + b2 g_t^2             every update
        M2 <- M2 + b3 (sum of the last `period` gradients) every `period` updates
        update = (NS(M1) + alpha NS(M2)) / (sqrt(V) + eps)

    The one departure is the sum: the printed bounds give `period + 1` terms, of which
    neighbouring sums share one.

    Args: as `scale_by_m3`. The paper gives no values; these are common ones.

    Example:
      >>> tx = scale_by_m3_literal(period=4)
      >>> w = {"w": jnp.ones((2, 2))}
      >>> state = tx.init(w)
      >>> update = jax.jit(tx.update)
      >>> small, _ = update({"w": jnp.full((2, 2), 1e-3)}, state)
      >>> large, _ = update({"w": jnp.full((2, 2), 1e3)}, state)
      >>> bool(small["w"][0, 0] > 1e5 * large["w"][0, 0])  # the smaller the gradient ...
      True
    """
    rule = "scale_by_m3_literal"
    checks.average(rule, b1=b1, b2=b2, b3=b3)
    checks.nonnegative(rule, alpha=alpha, eps=eps)
    checks.whole(rule, period=period, steps=steps)
    levels = (
        Level("fast", 1, optax.sgd(b1), "fast"),
        Level("square", 1, optax.sgd(b2), "square"),
        Level("slow", period, optax.sgd(b3), "slow"),
    )
    project = orthogonalize(steps, coefficients, eps, dims)

    def direction(memories, grads, count, slow_step):
        return jax.tree.map(
            lambda o1, o2, v: _like((o1 + alpha * o2) / (jnp.sqrt(v) + eps), o1),
            _apply(project, memories["fast"]),
            slow_step,
            memories["square"],
        )

    return _m3(rule, Levels(levels), project, direction, dims)


def m3(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.95,
    b3: float = 0.5,
    alpha: float = 0.2,
    period: int = 8,
    *,
    second_moment: Literal["gradient", "none"] = "gradient",
    nesterov: bool = True,
    steps: int = 5,
    dims: Dims = None,
    match_rms: float | None = 0.2,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
    adam_b1: float = 0.9,
    adam_b2: float = 0.95,
    adam_eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """M3 for the matrices of a model, AdamW for the rest, at one learning rate.

    Args:
      learning_rate: number or schedule.
      b1, b2, b3, alpha, period, second_moment, nesterov, steps: see `scale_by_m3`.
      dims, match_rms, weight_decay, mask: see `matrices_and_rest`.
      adam_b1, adam_b2, adam_eps: of AdamW, for what is no matrix.

    Example:
      >>> params = {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}
      >>> tx = m3(optax.cosine_decay_schedule(0.02, 1_000), weight_decay=0.1)
      >>> state = tx.init(params)
      >>> updates, state = jax.jit(tx.update)(params, state, params)
      >>> updates["kernel"].shape, updates["bias"].shape
      ((4, 2), (2,))
    """
    scale = functools.partial(
        scale_by_m3,
        b1,
        b2,
        b3,
        alpha,
        period,
        second_moment=second_moment,
        nesterov=nesterov,
        steps=steps,
    )
    return matrices_and_rest(
        scale,
        learning_rate,
        dims=dims,
        weight_decay=weight_decay,
        mask=mask,
        match_rms=match_rms,
        b1=adam_b1,
        b2=adam_b2,
        eps=adam_eps,
    )


def _m3(
    rule: str, levels: Levels, project, direction, dims: Dims
) -> optax.GradientTransformation:
    names = [level.name for level in levels.levels]

    def init(params):
        checks.matrices(rule, dims, params)
        zeros = jax.tree.map(jnp.zeros_like, params)
        memories = {name: jax.tree.map(jnp.copy, zeros) for name in names}
        levels_state = levels.init(memories) if jax.tree.leaves(params) else ()
        return M3State(memories, levels_state, zeros)

    def update(grads, state, params=None):
        if not state.levels:
            return grads, state
        # Gradients of -<m, g> and, for the second moment, of -<v, g^2>.
        minus = jax.tree.map(jnp.negative, grads)
        surprise = {name: minus for name in names}
        if "square" in names:
            surprise["square"] = jax.tree.map(lambda g: -jnp.square(g), grads)
        memories, levels_state, info = levels.step(state.memories, state.levels, surprise)
        count = jnp.asarray(levels_state.tick, jnp.float32)
        updates = direction(memories, grads, count, state.slow_step)
        slow_step = jax.lax.cond(
            info["slow"].updated,
            lambda: _apply(project, memories["slow"]),
            lambda: state.slow_step,
        )
        return updates, M3State(memories, levels_state, slow_step)

    return in_wide_type(optax.GradientTransformation(init, update))


def _average(beta: float) -> optax.GradientTransformation:
    """`m <- beta m - (1 - beta) grad`: gradient descent on a memory that decays."""
    return optax.chain(optax.add_decayed_weights(1.0), optax.scale(beta - 1.0))


def _apply(tx: optax.GradientTransformation, tree: Any) -> Any:
    return tx.update(tree, tx.init(tree))[0]


def _like(x: jax.Array, like: jax.Array) -> jax.Array:
    return x.astype(like.dtype)
