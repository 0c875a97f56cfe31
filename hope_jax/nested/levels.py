"""The levels engine: parameters that are updated at different frequencies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hope_jax.nested import scan
from hope_jax.nested.level import MAX_PERIOD, Level, assign, check_schedule
from hope_jax.nested.paths import flatten, nest, union
from hope_jax.nested.state import LevelInfo, LevelsState, LevelState
from hope_jax.nested.update import accumulate, init_level, norm, update


@dataclasses.dataclass(frozen=True)
class Levels:
    """Ordered levels, fastest first, each period dividing the next.

    The engine knows parameters, gradients and ticks; what they stand for is the caller's
    business. `step` does one tick, `run` many of them in nested scans. A level's
    parameters stay bit-identical until its boundary, the tick at which the number of
    ticks so far becomes a multiple of its period; there its optax transformation is
    stepped once, on the gradient summed over exactly those ticks (Eq. 71).

    Attributes:
      levels: the levels, fastest first.
      pre: optax transformation of the whole gradient at every tick, before it is summed,
        e.g. `optax.clip_by_global_norm(1.0)`.
      clear: `(grad_sum, extra) -> grad_sum`, asked for every level before a tick's gradient is
        added; drops what the sum is not to hold any more, such as the part of a text that is
        over. `extra` is what transformations get at this tick.

    Raises:
      ValueError: a schedule that cannot be run, or (in `init` and later) parameters that
        are in two levels or in none. The message names the level and the remedy.

    Examples:
      An outer optimizer, where a tick is a training step: the second matrix moves every
      fourth step, on the gradient of all four.

      >>> params = {"fast": jnp.ones((2, 2)), "slow": jnp.ones((2, 2))}
      >>> outer = Levels((Level("period_1", 1, optax.adamw(1e-2)),
      ...                 Level("period_4", 4, optax.adamw(1e-2), "slow")))
      >>> state = outer.init(params)
      >>> loss = lambda p: jnp.sum((p["slow"] @ p["fast"]) ** 2)
      >>> updated = []
      >>> for _ in range(5):
      ...     params, state, info = outer.step(params, state, jax.grad(loss)(params))
      ...     updated.append(int(info["period_4"].updated))
      >>> updated
      [0, 0, 0, 1, 0]

      In-context learning, where a tick is a token: a linear memory W learns the map from
      keys to values by the delta rule, which is SGD on |W k - v|^2 / 2, as it reads.

      >>> memory = Levels((Level("memory", 1, optax.sgd(1.0)),))
      >>> def read(params, carry, kv):
      ...     k, v = kv
      ...     def surprise(params):
      ...         return 0.5 * jnp.sum((params["W"] @ k - v) ** 2)
      ...     error, grads = jax.value_and_grad(surprise)(params)
      ...     return grads, carry, error
      >>> keys = jnp.concatenate([jnp.eye(3), jnp.eye(3)])  # the same text twice
      >>> W = {"W": jnp.zeros((3, 3))}
      >>> W, state, _, errors = memory.run(read, W, memory.init(W), (), (keys, 2 * keys))
      >>> print(errors)
      [2. 2. 2. 0. 0. 0.]
    """

    levels: tuple[Level, ...]
    pre: optax.GradientTransformation = optax.identity()
    clear: Callable[[Any, dict[str, Any]], Any] | None = None

    def __post_init__(self):
        object.__setattr__(self, "levels", tuple(self.levels))
        check_schedule(self.levels)

    def split(self, tree: Any) -> dict[str, Any]:
        """Parameters, or a tree of the same structure, as one nested dict per level."""
        leaves = flatten(tree)
        chosen = assign(self.levels, tree)
        return {name: nest({p: leaves[p] for p in paths}) for name, paths in chosen.items()}

    def init(self, params: Any) -> LevelsState:
        """State at tick 0; the initial values of levels with `reset_to_init` are `params`."""
        parts = self.split(params)
        states = {}
        anchor: Any = {}
        for level in self.levels:
            states[level.name] = init_level(level, parts[level.name], anchor)
            # A copy: the caller may donate parameters and state to the same jitted step.
            anchor = jax.tree.map(jnp.copy, parts[level.name]) if level.reset_to_init else {}
        return LevelsState(jnp.zeros((), jnp.int32), states, self.pre.init(params))

    def step(
        self, params: Any, state: LevelsState, grads: Any, **extra: Any
    ) -> tuple[Any, LevelsState, dict[str, LevelInfo]]:
        """One tick: take this tick's gradient in, and update the levels at their boundary.

        Args:
          params: any pytree of arrays.
          state: from `init` or the last tick. The tick is an array: one compiled step
            serves all ticks.
          grads: gradient with respect to `params`, same structure.
          **extra: passed to transformations that take extra arguments, e.g. `value=loss`;
            a slow level sees those of its boundary tick.

        Returns:
          Parameters, state, and a `LevelInfo` by level name.
        """
        if jax.tree.structure(grads) != jax.tree.structure(params):
            raise ValueError(
                "gradients and parameters differ in structure: "
                f"{jax.tree.structure(grads)} against {jax.tree.structure(params)}"
            )
        parts, raw = self.split(params), self.split(grads)
        pre = optax.with_extra_args_support(self.pre)
        grads, pre_state = pre.update(grads, state.pre, params, **extra)
        grads = self.split(grads)
        tick = self.later(state.tick, 1)
        sums = {name: level.grad_sum for name, level in state.levels.items()}
        sums = self.accumulate(sums, grads, extra)
        states = {n: s.replace(grad_sum=sums[n]) for n, s in state.levels.items()}
        info = {}
        for i, level in enumerate(self.levels):

            def do(parts, state, i=i, level=level):
                return self.update(i, parts, state, grads[level.name], extra)

            def skip(parts, state):
                return parts, state, jnp.zeros((), jnp.float32)

            due = tick % level.period == 0
            touched = {name: parts[name] for name in self.touched(i)}
            if level.period == 1:
                touched, new, size = do(touched, states[level.name])
            else:
                touched, new, size = jax.lax.cond(due, do, skip, touched, states[level.name])
            parts = {**parts, **touched}
            states[level.name] = new
            info[level.name] = LevelInfo(norm(raw[level.name]), size, due)
        return self.join(parts, params), LevelsState(tick, states, pre_state), info

    def run(
        self,
        step_fn: Callable[[Any, Any, Any], tuple[Any, ...]],
        params: Any,
        state: LevelsState,
        carry: Any,
        xs: Any,
        *,
        start: int | None = None,
        remat: Collection[str] = (),
        truncate: Collection[str] = (),
    ) -> tuple[Any, LevelsState, Any, Any]:
        """Many ticks in nested scans; the same result as `step` after `step`.

        A run may begin at any tick and have any length, so that a stream can be cut
        anywhere and read on. Differentiable in parameters, state, carry, inputs and in
        hyper-parameters of the transformations, through the updates; works under `vmap`.

        Args:
          step_fn: `(params, carry, x) -> (grads, carry, y)`, one tick; or with a fourth
            result, a dict of extra arguments for the transformations (as `extra` in `step`),
            such as the layer inputs of delta gradient descent.
          params, state: as in `step`.
          carry: any pytree that goes from tick to tick.
          xs: inputs with ticks along the leading axis of every leaf.
          start: the tick in `state` where it is known when tracing (0 for a fresh one).
            The compiled run is then for this start only, and has no skipped ticks where
            start and length are multiples of the periods.
          remat: names of levels; the backward pass keeps what enters one period of such
            a level and computes the inside again.
          truncate: names of levels at whose boundaries gradients stop: no outer gradient
            flows back through carry, parameters and optimizer states of this and faster
            levels. Slower levels stay connected.

        Returns:
          Parameters, state, carry, and the outputs `y` stacked along a leading time axis.

        Raises:
          ValueError: an unknown level name, inputs without a common leading axis, or a
            `start` that contradicts `state`.
        """
        lengths = sorted({jnp.shape(x)[:1] for x in jax.tree.leaves(xs)})
        if len(lengths) != 1 or lengths == [()]:
            raise ValueError(
                f"the leaves of xs have leading axes {lengths}; give all of them the same one, "
                f"the ticks"
            )
        names = [level.name for level in self.levels]
        for name in (*remat, *truncate):
            if name not in names:
                raise ValueError(f"remat or truncate names {name!r}; the levels are {names}")
        slowest = self.levels[-1].period
        if start is not None and not isinstance(state.tick, jax.core.Tracer):
            if (int(state.tick) - start) % slowest:
                raise ValueError(
                    f"start={start}, but the state is at tick {int(state.tick)}; pass that, or "
                    f"None to have it read from the state"
                )
        return scan.run(
            self, step_fn, params, state, carry, xs, start=start, remat=remat, truncate=truncate
        )

    # The pieces below are what `step` and the nested scans are made of.

    def join(self, parts: dict[str, Any], like: Any) -> Any:
        """Inverse of `split`, in the structure of `like`."""
        leaves: dict[str, Any] = {}
        for part in parts.values():
            leaves.update(flatten(part))
        return jax.tree.unflatten(jax.tree.structure(like), [leaves[p] for p in flatten(like)])

    def touched(self, i: int) -> tuple[str, ...]:
        """Levels whose parameters change at the boundary of level `i`."""
        names = [level.name for level in self.levels[: i + 1]]
        return tuple(names[-2:] if self.holds_anchor(i) else names[-1:])

    def holds_anchor(self, i: int) -> bool:
        """Whether level `i` owns the initial values of level `i - 1`."""
        return i > 0 and self.levels[i - 1].reset_to_init

    def accumulate(
        self, sums: dict[str, Any], grads: dict[str, Any], extra: dict[str, Any]
    ) -> dict[str, Any]:
        """Add one tick's gradient to the `grad_sum` of every level, by level name."""
        total = {}
        for i, level in enumerate(self.levels):
            own = grads[level.name]
            if self.holds_anchor(i):
                own = union(own, grads[self.levels[i - 1].name])
            before = sums[level.name]
            if self.clear is not None and level.period > 1:
                before = self.clear(before, extra)
            total[level.name] = accumulate(level, before, own)
        return total

    def update(
        self,
        i: int,
        parts: dict[str, Any],
        state: LevelState,
        grads: Any,
        extra: dict[str, Any],
    ) -> tuple[dict[str, Any], LevelState, jax.Array]:
        """Boundary of level `i`; `parts` holds the `touched` levels' parameters."""
        level = self.levels[i]
        own, state, size = update(level, parts[level.name], state, grads, extra)
        parts = {**parts, level.name: own}
        if self.holds_anchor(i):
            parts[self.levels[i - 1].name] = state.anchor
        return parts, state, size

    def later(self, tick: jax.Array, ticks: int) -> jax.Array:
        """The tick counter `ticks` later; it wraps where all levels are at a boundary."""
        slowest = self.levels[-1].period
        return (tick + ticks) % (MAX_PERIOD // slowest * slowest)
