"""The levels engine: parameters that are updated at different frequencies."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hope_jax.nested.level import MAX_PERIOD, Level, assign, check_schedule
from hope_jax.nested.paths import flatten, nest
from hope_jax.nested.state import LevelInfo, LevelsState, LevelState
from hope_jax.nested.update import accumulate, init_level, norm, update


@dataclasses.dataclass(frozen=True)
class Levels:
    """Ordered levels, fastest first, each period dividing the next.

    The engine knows parameters, gradients and ticks; what they stand for is the caller's
    business. `step` does one tick. A level's parameters stay bit-identical until its boundary, the tick at which the number of
    ticks so far becomes a multiple of its period; there its optax transformation is
    stepped once, on the gradient summed over exactly those ticks (Eq. 71).

    Attributes:
      levels: the levels, fastest first.
      pre: optax transformation of the whole gradient at every tick, before it is summed,
        e.g. `optax.clip_by_global_norm(1.0)`.

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
      >>> for _ in range(5):
      ...     params, state, info = outer.step(params, state, jax.grad(loss)(params))
      ...     print(bool(info["period_4"].updated), end=" ")
      False False False True False
    """

    levels: tuple[Level, ...]
    pre: optax.GradientTransformation = optax.identity()

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
          **extra: passed to transformations that take extra arguments, e.g. `value=loss`.

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
        states = self.accumulate(state.levels, grads)
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
        self, states: dict[str, LevelState], grads: dict[str, Any]
    ) -> dict[str, LevelState]:
        """Add one tick's gradient to the sums of all levels."""
        faster = [{}, *(grads[level.name] for level in self.levels)]
        return {
            level.name: accumulate(level, states[level.name], grads[level.name], before)
            for level, before in zip(self.levels, faster, strict=False)
        }

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
