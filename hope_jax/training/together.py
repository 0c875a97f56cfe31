"""Runs that differ in seeds and learning rate alone, trained as one program.

A small model leaves an accelerator idle most of the time, and much of a short run's time goes
into compiling. So the runs are stacked along a first axis, and `jax.vmap` of the ordinary step
trains all of them; each has its own folder with all that a run of its own would have written,
and may go on alone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hope_jax.checkpoint import CheckpointManager
from hope_jax.config import TrainConfig, to_dict
from hope_jax.config.check import require
from hope_jax.config.paths import local_path
from hope_jax.data import Batches, BatchIterator, open_dataset
from hope_jax.models import LanguageModel, abstract_params
from hope_jax.models.flops import flops_per_token
from hope_jax.optim import make
from hope_jax.parallel import local_rows, make_mesh, replicated, use_mesh
from hope_jax.training import finite
from hope_jax.training.answers import AnswerEvaluator
from hope_jax.training.clock import Clock
from hope_jax.training.evaluate import Evaluator
from hope_jax.training.hosts import InputTimes
from hope_jax.training.identity import describe_run
from hope_jax.training.loop import Outcome, check_vocabulary, tensor_names
from hope_jax.training.metrics import MetricsWriter, open_writers
from hope_jax.training.objective import token_losses
from hope_jax.training.progress import ProgressDisplay
from hope_jax.training.report import report
from hope_jax.training.resume import resume_or_start
from hope_jax.training.signals import StopSignals
from hope_jax.training.speed import SpeedMeter, peak_flops
from hope_jax.training.state import TrainState, to_snapshot
from hope_jax.training.step import make_step
from hope_jax.training.steplog import StepLog
from hope_jax.training.summary import RunFacts
from hope_jax.training.task_report import report_task
from hope_jax.training.tests_of_task import knows_enough, open_tests
from hope_jax.training.workdir import CHECKPOINTS, claim, flat

MAY_DIFFER = ("name", "seed", "data.seed", "optim.lr")


def common(config: TrainConfig) -> str:
    """What runs have to have in common to be one program, as text.

    >>> common(TrainConfig(seed=1)) == common(TrainConfig(seed=2))
    True
    """
    fields = flat(to_dict(config))
    return json.dumps({k: v for k, v in fields.items() if k not in MAY_DIFFER}, sort_keys=True)


def train_together(
    configs: Sequence[TrainConfig], workdirs: Sequence[str | Path]
) -> list[Outcome]:
    """`train` for every configuration, in the folder of the same place, on one device.

    Figures are those of `train` but for rounding. Runs that have come less far than others,
    because they were stopped, catch up by themselves. One that diverges, or whose `enough` is
    right, ends, and the others go on.

    Args:
      configs: differing in `MAY_DIFFER` alone.
      workdirs: their folders.

    Returns:
      How each ended; `failed` says why a run diverged.

    Raises:
      ValueError: the configurations differ in something else, a folder belongs to another
        one, or the data do not fit.
      OSError: a checkpoint could not be written; those before it are intact.
    """
    require(len(configs) > 0, "no runs to train together")
    first = configs[0]
    for config in configs[1:]:
        require(
            common(config) == common(first),
            f"{config.name} and {first.name} differ in more than {', '.join(MAY_DIFFER)}, so "
            "they cannot be one program",
        )
    display = ProgressDisplay(first.steps)
    with contextlib.ExitStack() as stack:
        stack.callback(display.close)
        mesh = make_mesh(first.mesh)
        require(
            mesh.devices.size == 1,
            f"runs are trained together on one device, and there are {mesh.devices.size}; make "
            "one visible to each process, or train them one by one",
        )
        stack.enter_context(use_mesh(mesh))
        shared = _Shared(first, mesh, display)
        runs = [
            _Run(shared, config, local_path(workdir, "the work folder"), stack)
            for config, workdir in zip(configs, workdirs, strict=True)
        ]
        for start in sorted({run.start for run in runs}):
            _train(shared, [run for run in runs if run.start == start])
    return [run.outcome for run in runs]


class _Shared:
    """What all runs have in common."""

    def __init__(self, config: TrainConfig, mesh: Mesh, display: ProgressDisplay):
        self.config, self.mesh, self.display = config, mesh, display
        self.rows = local_rows(config.data.batch, mesh)
        self.data = open_dataset(config.data, split="train", rows=self.rows)
        check_vocabulary(config, self.data)
        tokenizer = self.data.tokenizer
        self.held_out = open_dataset(config.data, tokenizer, split="validation", rows=self.rows)
        self.tests = open_tests(config, tokenizer, self.rows)
        self.model = LanguageModel(config.model)
        self.shapes = abstract_params(config.model)
        self.peak = peak_flops(mesh.devices.flatten().tolist())
        self.flops = flops_per_token(config.model, config.data.length).training
        task = config.data.task
        self.evaluator = (Evaluator if task is None else AnswerEvaluator)(self.model, mesh)


class _Run:
    """One of the runs: its folder, its place in its data, and how it ended."""

    def __init__(
        self,
        shared: _Shared,
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
        self.identity = describe_run(config, data.tokenizer)
        self.checkpoints = CheckpointManager(
            workdir / CHECKPOINTS, config.keep_checkpoints, self.say
        )
        stack.callback(self.checkpoints.close)
        levels = make(config, shared.shapes)
        self.state, self.start, before = resume_or_start(
            config, levels, self.checkpoints, self.batches, shared.mesh, self.say
        )
        self.clock = Clock(workdir, **before)
        self.writers: MetricsWriter = open_writers(workdir, self.start)
        stack.callback(self.writers.close)
        self.meter = SpeedMeter(shared.flops, shared.peak)
        self.inputs = InputTimes()
        self.log = StepLog(
            config,
            _Lines(self.say),
            self.writers,
            self.meter,
            self.clock,
            self.inputs,
            finite.BadSteps(config.max_bad_steps, tensor_names(levels, shared.shapes)),
            int(self.state.skipped),
        )
        self.batch: dict[str, np.ndarray] | None = None
        self.outcome: Outcome | None = None

    def read(self) -> dict[str, np.ndarray]:
        """The next batch; of a run that has ended the last one again."""
        if self.outcome is None or self.batch is None:
            with self.inputs.measured():
                self.batch = next(self.batches)
        return self.batch

    def save(self, state: TrainState, step: int) -> None:
        """Write a checkpoint, which a run of its own could go on from."""
        position = {"data": self.batches.get_state(), "clock": self.clock.read()}
        self.checkpoints.save(to_snapshot(state, step, position, self.identity))


class _Lines:
    """In place of a display: lines alone. How far it is, the display of all shows."""

    def __init__(self, say: Callable[[str], Any]):
        self.say = say

    def step(self, step: int) -> None:
        """A step was done."""

    def log(self, step: int, values: dict[str, Any]) -> None:
        """The numbers of a step."""


class _Readings:
    """Evaluations of all runs at once, each made when the first run asks for it."""

    def __init__(self, evaluator: Evaluator | AnswerEvaluator, params: Any):
        self._evaluator, self._params = evaluator, params
        self._known: dict[Any, list[Any]] = {}

    def of(self, number: int) -> Callable[..., Any]:
        """Takes the place of an evaluator for the run of this number."""

        def evaluate(params: Any, held_out: Batches, batches: int, *, writes: bool = True):
            key = id(held_out), batches, writes
            if key not in self._known:
                self._known[key] = self._evaluator.each(
                    self._params, held_out, batches, writes=writes
                )
            return self._known[key][number]

        return evaluate


def _train(shared: _Shared, runs: Sequence[_Run]) -> None:
    """Train runs that have come equally far; sets their `outcome`."""
    config, display, start = shared.config, shared.display, runs[0].start
    places = replicated(shared.mesh)
    stacked = jax.jit(lambda xs: jax.tree.map(lambda *x: jnp.stack(x), *xs))
    state: TrainState = stacked([run.state for run in runs])
    for run in runs:
        run.state = None
    rates = jax.device_put(np.array([run.config.optim.lr for run in runs], np.float32), places)
    one = jax.jit(lambda tree, i: jax.tree.map(lambda x: x[i], tree))  # compiled once for all

    def read() -> dict[str, jax.Array]:
        rows = [run.read() for run in runs]
        return jax.device_put(jax.tree.map(lambda *x: np.stack(x), *rows), places)

    # ------------------------------------------------------------------- compile
    batch, compile_seconds = None, 0.0
    if start < config.steps:
        began = time.perf_counter()
        batch = read()
        step_fn = _step(shared, places).lower(rates, state, batch).compile()
        compile_seconds = time.perf_counter() - began
        display.say(
            f"{len(runs)} runs in one program, compiled in {compile_seconds:.1f} s; the loss "
            "shown is their median"
        )

    def at_work() -> list[tuple[int, _Run]]:
        return [(i, run) for i, run in enumerate(runs) if run.outcome is None]

    def finish(i: int, step: int, readings: _Readings) -> None:
        run = runs[i]
        run.checkpoints.wait()
        known = run.clock.read()
        facts = RunFacts(
            parameters=sum(leaf.size for leaf in jax.tree.leaves(shared.shapes)),
            steps=step,
            skipped_steps=run.log.skipped,
            compile_seconds=compile_seconds,
            training_flops_per_token=shared.flops,
            peak=shared.peak,
            together=len(runs),
            **known | {"cpu_seconds": known["cpu_seconds"] / len(runs)},
        )
        trained = (run.config, run.workdir, facts, shared.model, one(state.params, i))
        evaluator = readings.of(i)
        if config.data.task is not None:
            rest = (shared.held_out, shared.tests, evaluator, shared.mesh, run.say)
            summary = report_task(*trained, *rest)
        else:
            rest = (shared.data, shared.held_out, evaluator, shared.mesh, run.say)
            summary = report(*trained, *rest)
        run.outcome = Outcome(step, None, summary)

    def take(step: int, metrics: dict[str, jax.Array]) -> None:
        values = jax.device_get(metrics)
        for i, run in at_work():
            try:
                run.log.take(step, {name: value[i] for name, value in values.items()})
            except finite.NonFinite as error:
                run.checkpoints.wait()
                run.say(str(error))
                run.outcome = Outcome(step, None, None, failed=str(error))
        display.step(step)
        if step == 1 or step % config.log_every == 0:
            display.log(step, {"loss": float(np.nanmedian(values["loss"]))})

    def evaluate(step: int, log: bool = True) -> None:
        """Evaluate all runs, and finish those that know enough."""
        readings = _Readings(shared.evaluator, state.params)
        for i, run in at_work():
            evaluator = readings.of(i)
            found = evaluator(None, shared.held_out, config.eval_batches)
            if log:
                run.log.evaluation(step, found)
            if knows_enough(config, None, evaluator, found, shared.tests):
                run.say(f"enough is right after {step} steps")
                run.save(one(state, i), step)
                finish(i, step, readings)

    # ------------------------------------------------------------------ the loop
    display.begin(start)
    step, running, stopping = start, None, None
    if config.enough is not None and start and start % config.eval_every == 0:
        evaluate(start, log=False)  # a run may have ended here
    with StopSignals() as signals, _all(run.clock.training() for run in runs):
        while step < config.steps and stopping is None and at_work():
            batch = read() if batch is None else batch
            with jax.transfer_guard("disallow"):
                state, metrics = step_fn(rates, state, batch)
            step, batch = step + 1, None
            if running is not None:
                take(*running)  # the step before: the device has the next one
            running = step, metrics
            stopping = signals.after(step)
            look = step % config.eval_every == 0 and stopping is None
            last = step == config.steps or stopping is not None
            checkpoint = step % config.checkpoint_every == 0 or last
            if look or checkpoint:
                take(*running)
                running = None
                with (
                    _all(run.meter.paused() for run in runs),
                    _all(run.clock.paused() for run in runs),
                ):
                    if look:
                        evaluate(step)
                    for i, run in at_work() if checkpoint else ():
                        if last or run.log.bad_steps.streak == 0:
                            run.save(one(state, i), step)
        for _, run in at_work():
            run.checkpoints.wait()
    readings = _Readings(shared.evaluator, state.params)
    for i, run in at_work():
        if step < config.steps:
            run.outcome = Outcome(step, stopping, None)
        else:
            finish(i, step, readings)


def _step(shared: _Shared, places: Any) -> Any:
    """The step of all runs, jitted: `(rates [R], states, batches) -> (states, metrics)`."""
    losses = functools.partial(token_losses, shared.model)

    def step(lr: jax.Array, state: TrainState, batch: dict[str, jax.Array]):
        levels = make(shared.config, shared.shapes, lr)
        return make_step(losses, levels, shared.config, lr)(state, batch)

    return jax.jit(jax.vmap(step), donate_argnums=1, out_shardings=places)


@contextlib.contextmanager
def _all(contexts: Iterable[contextlib.AbstractContextManager]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield
