"""Nested scans over ticks: the slow level's body holds the fast level's scan.

The ticks of a run are laid on the grid of absolute ticks. With periods 1, 4, 16 the grid
is [blocks, 4, 4]: the innermost scan takes four ticks with the level of period 4 frozen,
the one around it takes four of these with the level of period 16 frozen, and so on. A
boundary is the end of a scan and not a test at every tick, and a frozen level is a
constant of the scan and not part of its carry, so that the backward pass keeps one copy
of its parameters per update and not one per tick. Where a run begins or ends inside a
block, the ticks of the block that are not in the run are skipped.

A level whose period is longer than the run cannot fill a block. It is updated under a
condition at the end of the largest blocks that fit, where alone its boundary can lie.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hope_jax.nested.state import LevelsState, LevelState

if TYPE_CHECKING:
    from hope_jax.nested.levels import Levels

StepFn = Callable[[Any, Any, Any], tuple[Any, ...]]


@struct.dataclass
class _Moving:
    """Carry of a scan: the levels that it moves, and every level's gradient sum."""

    params: dict[str, Any]
    levels: dict[str, LevelState]  # with grad_sum taken out
    sums: dict[str, Any]  # grad_sum by level name
    pre: Any
    carry: Any
    extra: dict[str, Any]  # extra arguments of the last tick

    def only(self, names: Collection[str]) -> _Moving:
        """Leave out the parameters and optimizer states of other levels."""
        return self.replace(
            params={n: self.params[n] for n in names}, levels={n: self.levels[n] for n in names}
        )

    def over(self, frozen: _Moving) -> _Moving:
        """Put back what `only` left out."""
        return self.replace(
            params=frozen.params | self.params, levels=frozen.levels | self.levels
        )


def run(
    levels: Levels,
    step_fn: StepFn,
    params: Any,
    state: LevelsState,
    carry: Any,
    xs: Any,
    *,
    start: int | None,
    remat: Collection[str],
    truncate: Collection[str],
) -> tuple[Any, LevelsState, Any, Any]:
    """`Levels.run`, where the arguments are explained."""
    xs, carry = jax.tree.map(jnp.asarray, (xs, carry))
    length = jax.tree.leaves(xs)[0].shape[0]
    periods = sorted({1, *(level.period for level in levels.levels if level.period <= length)})
    block = periods[-1]
    first = state.tick if start is None else start
    offset = first % block if block > 1 else 0
    reach = block - 1 if start is None else offset
    blocks = -(-(length + reach) // block)
    ratios = [slow // fast for fast, slow in zip(periods, periods[1:], strict=False)]
    grid = (blocks, *reversed(ratios))
    index = jnp.arange(blocks * block, dtype=jnp.int32) - offset
    whole = reach == 0 and blocks * block == length
    valid = None if whole else ((index >= 0) & (index < length)).reshape(grid)

    def lay_out(x):
        # The ticks to skip see real data: under vmap both branches of a cond are computed.
        x = x if whole else x[jnp.clip(index, 0, length - 1)]
        return x.reshape(*grid, *x.shape[1:])

    def read_off(y):
        y = y.reshape(blocks * block, *y.shape[len(grid) :])
        return y if whole else jax.lax.dynamic_slice_in_dim(y, offset, length)

    slower = [
        i
        for i, level in enumerate(levels.levels)
        if level.period > block
        and (start is None or (start + length) // level.period > start // level.period)
    ]
    nest = _Nest(levels, step_fn, params, periods, frozenset(remat), frozenset(truncate))
    everything = _Moving(
        params=levels.split(params),
        levels={name: level.replace(grad_sum={}) for name, level in state.levels.items()},
        sums={name: level.grad_sum for name, level in state.levels.items()},
        pre=state.pre,
        carry=carry,
        extra=_zeros_of_extra(step_fn, params, carry, xs),
    )
    names = nest.up_to(block) | {levels.levels[i].name for i in slower}

    def body(moving, x):
        end, x, valid = x
        moving, y = nest.block(len(periods) - 1, moving.over(everything), x, valid)
        for i in slower:
            due = (end % levels.levels[i].period == 0) & _last(valid)
            moving = jax.lax.cond(due, lambda m, i=i: nest.update(i, m, None), _same, moving)
        return moving.only(names), y

    ends = first - offset + block * jnp.arange(1, blocks + 1, dtype=jnp.int32)
    moving, ys = jax.lax.scan(
        nest.rematerialised(block, body),
        everything.only(names),
        (ends, jax.tree.map(lay_out, xs), valid),
    )
    moving = moving.over(everything)
    state = LevelsState(
        tick=levels.later(state.tick, length),
        levels={n: s.replace(grad_sum=moving.sums[n]) for n, s in moving.levels.items()},
        pre=moving.pre,
    )
    return levels.join(moving.params, params), state, moving.carry, jax.tree.map(read_off, ys)


@dataclasses.dataclass(frozen=True)
class _Nest:
    """The bodies of the scans of one run."""

    levels: Levels
    step_fn: StepFn
    like: Any  # parameters, for their structure
    periods: list[int]  # that have a scan of their own, from 1
    remat: frozenset[str]
    truncate: frozenset[str]

    def up_to(self, period: int) -> set[str]:
        """Names of the levels that are no slower than `period`."""
        return {level.name for level in self.levels.levels if level.period <= period}

    def block(
        self, depth: int, moving: _Moving, xs: Any, valid: jax.Array | None
    ) -> tuple[_Moving, Any]:
        """The `periods[depth]` ticks between two boundaries of that period."""
        if depth == 0:
            if valid is None:
                return self.tick(moving, xs)
            return jax.lax.cond(valid, self.tick, self.skip, moving, xs)
        names = self.up_to(self.periods[depth - 1])

        def body(inner, x):
            inner, y = self.block(depth - 1, inner.over(moving), *x)
            return inner.only(names), y

        body = self.rematerialised(self.periods[depth - 1], body)
        inner, ys = jax.lax.scan(body, moving.only(names), (xs, valid))
        moving = inner.over(moving)
        boundary = lambda m: self.boundary(self.periods[depth], m, None)
        if valid is None:
            return boundary(moving), ys
        return jax.lax.cond(_last(valid), boundary, _same, moving), ys

    def tick(self, moving: _Moving, x: Any) -> tuple[_Moving, Any]:
        """One tick and, after it, the levels of period 1."""
        params = self.levels.join(moving.params, self.like)
        grads, carry, y, *extra = self.step_fn(params, moving.carry, x)
        extra = extra[0] if extra else {}
        tx = optax.with_extra_args_support(self.levels.pre)
        grads, pre = tx.update(grads, moving.pre, params, **extra)
        grads = self.levels.split(grads)
        sums = self.levels.accumulate(moving.sums, grads, extra)
        moving = moving.replace(sums=sums, pre=pre, carry=carry, extra=extra)
        return self.boundary(1, moving, grads), y

    def skip(self, moving: _Moving, x: Any) -> tuple[_Moving, Any]:
        """Leave everything as it is; zeros in place of the output."""
        _, y = jax.eval_shape(self.tick, moving, x)
        return moving, jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), y)

    def boundary(self, period: int, moving: _Moving, grads: dict[str, Any] | None) -> _Moving:
        """Update the levels of this period."""
        for i, level in enumerate(self.levels.levels):
            if level.period == period:
                moving = self.update(i, moving, grads)
        return moving

    def update(self, i: int, moving: _Moving, grads: dict[str, Any] | None) -> _Moving:
        """Update level `i`; cut the gradient there if the run asks for it."""
        name = self.levels.levels[i].name
        parts = {n: moving.params[n] for n in self.levels.touched(i)}
        state = moving.levels[name].replace(grad_sum=moving.sums[name])
        parts, state, _ = self.levels.update(
            i, parts, state, grads and grads[name], moving.extra
        )
        moving = moving.replace(
            params=moving.params | parts,
            levels=moving.levels | {name: state.replace(grad_sum={})},
            sums=moving.sums | {name: state.grad_sum},
        )
        if name not in self.truncate:
            return moving
        past = moving.only([level.name for level in self.levels.levels[: i + 1]])
        cut = jax.lax.stop_gradient(past.replace(sums={}))
        return cut.over(moving).replace(sums=moving.sums, extra=moving.extra)

    def rematerialised(self, period: int, body: Callable) -> Callable:
        """`body` holds one period of this length; keep only its input if so asked."""
        asked = any(
            level.period == period and level.name in self.remat for level in self.levels.levels
        )
        # Inside a scan there is nothing that the recomputation could be merged with.
        return jax.checkpoint(body, prevent_cse=False) if asked else body


def _zeros_of_extra(step_fn: StepFn, params: Any, carry: Any, xs: Any) -> dict[str, Any]:
    """What stands for the extra arguments before the first tick, which no update sees."""
    x = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    _, _, _, *extra = jax.eval_shape(step_fn, params, carry, x)
    zeros = lambda x: jnp.zeros(x.shape, x.dtype)
    return jax.tree.map(zeros, extra[0]) if extra else {}


def _last(valid: jax.Array | None) -> jax.Array | bool:
    """Whether the last tick of a block is in the run."""
    return True if valid is None else valid.reshape(-1)[-1]


def _same(moving: _Moving) -> _Moving:
    return moving
