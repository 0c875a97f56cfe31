"""Deep momentum: the momentum is an MLP that learns from gradients as it goes (Eq. 50)."""

from __future__ import annotations

import functools
import zlib
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hope_jax.nested import Level, Levels, LevelsState
from hope_jax.nested.paths import flatten
from hope_jax.optim import checks
from hope_jax.optim.matrices import Dims, by_path, matrix_view
from hope_jax.optim.mixed import matrices_and_rest
from hope_jax.optim.precision import like, wide_type, widen, zeros
from hope_jax.optim.unit import unit


class DeepMomentumState(NamedTuple):
    """State of `scale_by_deep_momentum`.

    Attributes:
      trace: decayed sum of gradients, like the parameters, in float32 at least.
      memory: by path of the parameter, `w_in` [..., Z, hidden], `w_out` [..., hidden, Z].
      levels: state of the level that updates the memory; `()` without parameters.
      value: state of the transformation that makes the value.
    """

    trace: optax.Updates
    memory: dict[str, dict[str, jax.Array]]
    levels: LevelsState | tuple[()]
    value: optax.OptState


def scale_by_deep_momentum(
    hidden: int = 64,
    decay: float = 0.99,
    rate: float = 0.3,
    objective: Literal["l2", "dot", "ones"] = "l2",
    trace: float = 0.9,
    value: optax.GradientTransformation | None = None,
    period: int = 1,
    seed: int = 0,
    dims: Dims = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum by a memory that is trained, one step per update, on gradients (Eq. 50).

    Every weight matrix `[K, Z]` has a memory, a residual MLP over the K rows u of its
    heavy-ball momentum, each scaled to length one::

        M(u) = u + tanh(u W_in) W_out / sqrt(hidden)

    An update first writes the memory by gradient descent on its own objective, then gives
    M(u) for the new momentum, each row times the length that it had in the momentum. These
    lengths are scaled so that u itself would come out with root mean square one over the
    matrix. `W_out` starts at zero: a fresh memory passes the normalised momentum on. What it
    learns changes the size too: with gradients that persist, "l2" stays near one, while
    "dot" and "ones" grow to about two or three at the defaults. `match_rms` sets the size,
    as it does in `deep_momentum`. Nothing depends on the scale of gradients, and `W_out`
    stays below `2 rate / (1 - decay)`, because keys, values and hidden layers are no longer
    than one.

    Objectives, minimised with steps of size `rate`, mean over rows:

    - "l2": `|M(u) - v|^2 / 2`, u being the momentum before this gradient and v the rows of
      the new gradient (or of `value`), of length one. The memory learns to predict the next
      gradient from the momentum. What persists is passed on, what oscillates or is noise is
      taken out. In as many steps it came to lower losses than momentum on noisy regressions
      with small MLPs, and to the same on noisy parabolas.
    - "dot": `-<M(u), v>` for the same pairs. The memory adds up what it saw without regard
      to what it holds, and behaves much like the plain momentum.
    - "ones": `-<M(u), 1> / sqrt(Z)` for the present momentum u, the objective that Eq. 50 is
      printed with. Its gradient does not hold what the memory should answer: all that the
      memory adds to u is a multiple of the direction of ones. It learns nothing from
      gradients, and without the residual path nothing else would be left of them. It is
      there to compare.

    Departures from Eq. 50: the key is a momentum and not the bare gradient, because a memory
    that sees one noisy gradient averages little over time (`trace=0` for the bare gradient);
    the memory is residual; and decay holds for `W_out` alone, because a memory whose two
    matrices decay to zero has no gradient left to learn from.

    Args:
      hidden: width of the memory.
      decay: alpha of Eq. 50, what remains of `W_out` per write.
      rate: eta of Eq. 50.
      objective: see above.
      trace: decay of the momentum that is the memory's input.
      value: makes the value from the gradient, any optax transformation; by default the
        gradient itself.
      period: updates per write; a write takes the mean gradient of its objective over them.
      seed: of the initial `W_in`.
      dims: which axes of parameters are K and Z, `hope_jax.optim.matrices`.

    Returns:
      The transformation; updates have the gradient's sign and type.

    Raises:
      ValueError: a parameter that is not a matrix, an unknown objective, or a number out
        of range: `decay` and `trace` are from 0 to 1, and so is `rate` with "l2".
        `hidden` and `period` cannot be traced.

    Example:
      A fresh memory gives the normalised gradient, whatever its scale.

      >>> tx = scale_by_deep_momentum()
      >>> w = {"w": jnp.zeros((2, 2))}
      >>> grad = {"w": jnp.array([[3e-9, 0], [0, 4e-9]])}
      >>> update, state = jax.jit(tx.update)(grad, tx.init(w))
      >>> print(update["w"])
      [[1.2 0. ]
       [0.  1.6]]

    References:
      Behrouz et al., "Nested Learning: The Illusion of Deep Learning Architectures", 2025.
    """
    rule = "deep momentum"
    checks.whole(rule, hidden=hidden, period=period)
    checks.one_of(rule, "objective", objective, ("l2", "dot", "ones"))
    checks.fraction(rule, decay=decay, trace=trace)
    if objective == "l2":
        checks.fraction(rule, rate=rate)
    checks.nonnegative(rule, rate=rate)
    value_tx = optax.with_extra_args_support(optax.identity() if value is None else value)
    learn = optax.chain(
        optax.scale_by_learning_rate(rate), optax.add_decayed_weights(decay - 1, _is_w_out)
    )
    levels = Levels((Level("memory", period, learn, reduction="mean"),))

    def init(params: optax.Params) -> DeepMomentumState:
        checks.matrices(rule, dims, params)
        axes = by_path(dims, params)
        memory = {}
        for path, x in flatten(params).items():
            view, _ = matrix_view(rule, path, x.shape, axes[path])
            *batch, _, Z = jax.eval_shape(view, x).shape
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))
            dtype = wide_type(x)
            memory[path] = {
                "w_in": jax.random.normal(key, (*batch, Z, hidden), dtype),
                "w_out": jnp.zeros((*batch, hidden, Z), dtype),
            }
        level_state = levels.init(memory) if memory else ()
        value = value_tx.init(widen(params))
        return DeepMomentumState(zeros(params), memory, level_state, value)

    def loss(memory, pairs):
        total = 0.0
        for path, (key, target) in pairs.items():
            read = _read(memory[path], key)
            if objective == "l2":
                each = 0.5 * jnp.square(read - target)
            else:
                each = -read * target
            total += jnp.sum(each) / max(key.shape[-2], 1)
        return total

    def update(
        updates: optax.Updates,
        state: DeepMomentumState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, DeepMomentumState]:
        values, value_state = value_tx.update(
            widen(updates), state.value, widen(params), **extra
        )
        new = jax.tree.map(lambda t, g: trace * t + g.astype(t.dtype), state.trace, updates)
        if not state.memory:
            return updates, state
        axes = by_path(dims, updates)
        old, now, values = flatten(state.trace), flatten(new), flatten(values)
        pairs, reads = {}, {}
        for path, x in flatten(updates).items():
            view, back = matrix_view(rule, path, x.shape, axes[path])
            key, length = unit(view(now[path]), -1)
            target, _ = unit(view(values[path]).astype(key.dtype), -1)
            if objective == "ones":
                target = jnp.full_like(key, max(key.shape[-1], 1) ** -0.5)
            asked = key if objective == "ones" else unit(view(old[path]), -1)[0]
            pairs[path] = asked, target
            reads[path] = key, length, back
        grads = jax.grad(loss)(state.memory, pairs)
        memory, level_state, _ = levels.step(state.memory, state.levels, grads)
        made = []
        for path, (key, length, back) in reads.items():
            size = (key.shape[-2] * key.shape[-1]) ** 0.5
            made.append(back(_read(memory[path], key) * unit(length, -2)[0] * size))
        made = like(jax.tree.unflatten(jax.tree.structure(updates), made), updates)
        state = DeepMomentumState(new, memory, level_state, value_state)
        return made, state

    return optax.GradientTransformationExtraArgs(init, update)


def deep_momentum(
    learning_rate: optax.ScalarOrSchedule,
    hidden: int = 64,
    decay: float = 0.99,
    rate: float = 0.3,
    objective: Literal["l2", "dot", "ones"] = "l2",
    trace: float = 0.9,
    value: optax.GradientTransformation | None = None,
    period: int = 1,
    seed: int = 0,
    *,
    dims: Dims = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
    match_rms: float | None = 0.2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Deep momentum for matrices and AdamW for the rest, with one learning rate.

    Args:
      learning_rate: number or schedule.
      hidden, decay, rate, objective, trace, value, period, seed: see
        `scale_by_deep_momentum`.
      dims, weight_decay, mask, match_rms, b1, b2, eps: see `matrices_and_rest`.

    Example:
      >>> tx = deep_momentum(0.1, hidden=8)
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
        scale_by_deep_momentum,
        hidden=hidden,
        decay=decay,
        rate=rate,
        objective=objective,
        trace=trace,
        value=value,
        period=period,
        seed=seed,
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


def _read(memory: dict[str, jax.Array], u_KZ: jax.Array) -> jax.Array:
    """The memory's answer to keys of length one, `[..., K, Z]`."""
    w_in, w_out = memory["w_in"], memory["w_out"]
    # Divided here, so that the hidden layer is no longer than one, whatever its width.
    hidden_KH = jnp.tanh(u_KZ @ w_in) * w_in.shape[-1] ** -0.5
    return u_KZ + hidden_KH @ w_out


def _is_w_out(memory: Any) -> Any:
    """Mask of the part of memories that decays."""
    names = [path.split("/")[-1] == "w_out" for path in flatten(memory)]
    return jax.tree.unflatten(jax.tree.structure(memory), names)
