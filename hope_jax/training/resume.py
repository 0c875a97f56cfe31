"""Where a run begins: at its newest checkpoint, under a changed optimizer too, or anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from hope_jax.checkpoint import CheckpointManager
from hope_jax.config import TrainConfig, from_dict
from hope_jax.data import BatchIterator
from hope_jax.nested import Levels
from hope_jax.optim import start_at
from hope_jax.training.start import starting_params
from hope_jax.training.state import (
    TrainState,
    abstract_state,
    from_snapshot,
    init_state,
    to_snapshot,
)


def resume_or_start(
    config: TrainConfig,
    levels: Levels,
    checkpoints: CheckpointManager,
    batches: BatchIterator,
    mesh: Mesh,
    say: Callable[[str], Any] = print,
    change_optimizer: bool = False,
) -> tuple[TrainState, int, dict[str, float]]:
    """State, step and clock of the newest good checkpoint, or of a fresh start.

    With `change_optimizer`, levels whose rule differs from the checkpoint's start with a
    fresh optimizer state and keep everything else: parameters, the gradient summed since
    their last update, initial values that they own. Their schedules go on at the present
    step. All other levels go on as if nothing had happened.
    """
    shapes = abstract_state(config, levels, mesh)
    like = to_snapshot(shapes, 0, {}, {})
    renew = (lambda stored: _changed(config, levels, stored)) if change_optimizer else None
    snapshot = checkpoints.restore(like, renew)
    if snapshot is None:
        params = None
        if config.start is not None:
            params = starting_params(config, batches.tokenizer, shapes.params)
            say(f"beginning with the weights of {config.start}")
        return init_state(config, levels, shapes, params), 0, {}
    batches.set_state(snapshot.position["data"])
    fresh = [
        name
        for name, state in snapshot.levels.items()
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(state))
    ]
    if fresh:
        say(
            f"another rule: {', '.join(fresh)} start with a fresh optimizer state at step "
            f"{snapshot.step}"
        )
        snapshot = dataclasses.replace(
            snapshot, levels=snapshot.levels | _begin_anew(levels, snapshot, fresh)
        )
    return from_snapshot(snapshot), snapshot.step, snapshot.position["clock"]


def _changed(config: TrainConfig, levels: Levels, stored: dict[str, Any]) -> list[str]:
    """Levels that have another kind of rule than the stored configuration gives them."""
    before = from_dict(stored["config"]).optim
    return [
        level.name
        for level in levels.levels
        if before.at(level.period).rule.type != config.optim.at(level.period).rule.type
    ]


def _begin_anew(levels: Levels, snapshot: Any, names: list[str]) -> dict[str, Any]:
    """States of these levels with a fresh `opt_state`, schedules at the present step."""
    ticks = int(snapshot.loop["step"]) - int(snapshot.loop["skipped"])
    periods = {level.name: level.period for level in levels.levels}

    def opt_states(slow):
        fresh = levels.init(slow).levels
        return {n: start_at(fresh[n].opt_state, ticks // periods[n]) for n in names}

    places = jax.tree.map(
        lambda x: x.sharding, {n: snapshot.levels[n].opt_state for n in names}
    )
    made = jax.jit(opt_states, out_shardings=places)(snapshot.slow)
    return {name: snapshot.levels[name].replace(opt_state=made[name]) for name in names}
