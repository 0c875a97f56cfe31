"""One of several runs in one program: its folder, its place in its data, and how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from hope_jax.checkpoint import CheckpointManager
from hope_jax.config import TrainConfig
from hope_jax.data import BatchIterator, open_dataset
from hope_jax.models import LanguageModel, abstract_params
from hope_jax.models.flops import flops_per_token
from hope_jax.optim import make
from hope_jax.parallel import local_rows
from hope_jax.training import finite
from hope_jax.training.answers import AnswerEvaluator
from hope_jax.training.clock import Clock
from hope_jax.training.evaluate import Evaluator
from hope_jax.training.hosts import InputTimes
from hope_jax.training.identity import describe_run
from hope_jax.training.loop import Outcome, check_vocabulary, tensor_names
from hope_jax.training.metrics import open_writers
from hope_jax.training.progress import ProgressDisplay
from hope_jax.training.resume import resume_or_start
from hope_jax.training.speed import SpeedMeter, peak_flops
from hope_jax.training.state import TrainState, to_snapshot
from hope_jax.training.steplog import StepLog
from hope_jax.training.tests_of_task import open_tests
from hope_jax.training.workdir import CHECKPOINTS, claim


class Shared:
    """What all runs have in common: the model, its data but for their order, the terminal.

    Args:
      config: of any of them.
      mesh: of one device.
      display: the terminal.
    """

    def __init__(self, config: TrainConfig, mesh: Mesh, display: ProgressDisplay):
        self.config, self.mesh, self.display = config, mesh, display
        self.rows = local_rows(config.data.batch, mesh)
        self.data = open_dataset(config.data, split="train", rows=self.rows)
        check_vocabulary(config, self.data)
        tokenizer = self.data.tokenizer
        self.held_out = open_dataset(config.data, tokenizer, split="validation", rows=self.rows)
        self.tests = open_tests(config, tokenizer, mesh)
        self.model = LanguageModel(config.model)
        self.shapes = abstract_params(config.model)
        self.peak = peak_flops(mesh.devices.flatten().tolist())
        self.flops = flops_per_token(config.model, config.data.length).training
        task = config.data.task
        self.evaluator = (Evaluator if task is None else AnswerEvaluator)(self.model, mesh)


class Run:
    """Where one run is kept, and what becomes of its steps.

    Args:
      shared: what it has in common with the others.
      config: its own.
      workdir: its folder, which is claimed until `stack` is closed.
      stack: closes what is open.

    Attributes:
      state: what it goes on from; None when a program has taken it over.
      start: steps that it had done before.
      outcome: how it ended; None while it is at work.
      batches: its data, at the place where it is; runs may share it.
      inputs: how long it waits for them.
    """

    def __init__(
        self,
        shared: Shared,
        config: TrainConfig,
        workdir: Path,
        stack: contextlib.ExitStack,
    ):
        stack.enter_context(claim(workdir, config))
        self.config, self.workdir = config, workdir
        self.say = lambda line: shared.display.say(f"{workdir.name}: {line}")
        data = open_dataset(config.data, shared.data.tokenizer, split="train", rows=shared.rows)
        self.batches: BatchIterator = iter(data)
        stack.callback(self.batches.close)
        self._identity = describe_run(config, data.tokenizer)
        self.checkpoints = CheckpointManager(
            workdir / CHECKPOINTS, config.keep_checkpoints, self.say
        )
        stack.callback(self.checkpoints.close)
        levels = make(config, shared.shapes)
        state, self.start, before = resume_or_start(
            config, levels, self.checkpoints, self.batches, shared.mesh, self.say
        )
        self.state: TrainState | None = state
        self.clock = Clock(workdir, **before)
        writers = open_writers(workdir, self.start)
        stack.callback(writers.close)
        self.meter = SpeedMeter(shared.flops, shared.peak)
        self.inputs = InputTimes()
        self.log = StepLog(
            config,
            _Lines(self.say),
            writers,
            self.meter,
            self.clock,
            self.inputs,
            finite.BadSteps(config.max_bad_steps, tensor_names(levels, shared.shapes)),
            int(state.skipped),
        )
        self.outcome: Outcome | None = None

    def take(self, step: int, metrics: dict[str, np.ndarray]) -> None:
        """Take in a step; a run that diverged ends."""
        try:
            self.log.take(step, metrics)
        except finite.NonFinite as error:
            self.checkpoints.wait()
            self.say(str(error))
            self.outcome = Outcome(step, None, None, failed=str(error))

    def save(self, state: TrainState, step: int) -> None:
        """Write a checkpoint, which a run of its own could go on from."""
        position = {"data": self.batches.get_state(), "clock": self.clock.read()}
        self.checkpoints.save(to_snapshot(state, step, position, self._identity))

    @contextlib.contextmanager
    def paused(self):
        """Time for something else than training."""
        with self.meter.paused(), self.clock.paused():
            yield


class _Lines:
    """In place of a display: lines alone. How far it is, the display of all shows."""

    def __init__(self, say: Callable[[str], Any]):
        self.say = say

    def step(self, step: int) -> None:
        """A step was done."""

    def log(self, step: int, values: dict[str, Any]) -> None:
        """The numbers of a step."""
