"""Speed and memory of the training step, as `hope train` runs it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.benchmark.cases import Settings, train_config
from hope_jax.benchmark.measure import (
    compiled_bytes,
    memory_limit,
    process_peak,
    reset_peak,
    spend,
)
from hope_jax.benchmark.results import Training
from hope_jax.models import LanguageModel, abstract_params, flops_per_token
from hope_jax.optim import make
from hope_jax.parallel import one_device
from hope_jax.training.objective import token_losses
from hope_jax.training.state import abstract_state, init_state
from hope_jax.training.step import make_step


class TrainCase:
    """The training step of one model at one length, compiled.

    A step that needs more memory than there is is not run; `result.skipped` says so.
    """

    def __init__(self, name: str, length: int, settings: Settings):
        config = train_config(name, length, settings)
        model = LanguageModel(config.model)
        shapes = abstract_params(config.model)
        levels = make(config, shapes)
        step = make_step(functools.partial(token_losses, model), levels, config)
        state = abstract_state(config, levels, one_device())
        self._batch = _batch(length, settings)
        jitted = jax.jit(step, donate_argnums=0)
        self._step, compiling = spend(lambda: jitted.lower(state, self._batch).compile())
        self.result = Training(
            model=name,
            length=length,
            batch=settings.batch,
            params=sum(leaf.size for leaf in jax.tree.leaves(shapes)),
            flops_per_token=flops_per_token(config.model, length).training,
            compile=compiling,
            compiled_bytes=compiled_bytes(self._step),
        )
        needed, limit = self.result.compiled_bytes or 0, memory_limit()
        if needed > 0.9 * limit:
            self.result.skipped = (
                f"needs {needed / 2**30:.1f} GiB and the device has {limit / 2**30:.1f}"
            )
            return
        self._state = init_state(config, levels, state)
        reset_peak()
        self._run()  # warm: allocations and thread pools
        self.result.process_bytes = process_peak()

    def measure(self) -> None:
        """One round: one step."""
        if self.result.skipped is None:
            _, spent = spend(self._run)
            self.result.spent.append(spent)

    def compiled_text(self) -> str:
        """The optimised program, for profiles."""
        return self._step.as_text()

    def _run(self) -> jax.Array:
        self._state, metrics = self._step(self._state, self._batch)
        return jax.block_until_ready(metrics["loss"])


def _batch(length: int, settings: Settings) -> dict[str, jax.Array]:
    tokens_BT = np.random.default_rng(0).integers(
        0, settings.vocab_size, (settings.batch, length + 1), np.int32
    )
    reset_BT = np.zeros((settings.batch, length), bool)
    reset_BT[:, 0] = True
    return {"tokens": jnp.asarray(tokens_BT), "reset": jnp.asarray(reset_BT)}
