"""The loop around one program that trains several runs."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.config import TrainConfig
from hope_jax.config.check import require
from hope_jax.config.paths import local_path
from hope_jax.data import Batches
from hope_jax.optim import make
from hope_jax.parallel import make_mesh, replicated, use_mesh
from hope_jax.training.answers import AnswerEvaluator
from hope_jax.training.conclude import conclude
from hope_jax.training.evaluate import Evaluator
from hope_jax.training.loop import Outcome
from hope_jax.training.objective import token_losses
from hope_jax.training.progress import ProgressDisplay
from hope_jax.training.signals import StopSignals
from hope_jax.training.state import TrainState
from hope_jax.training.step import make_step
from hope_jax.training.summary import RunFacts
from hope_jax.training.tests_of_task import knows_enough
from hope_jax.training.together.alike import MAY_DIFFER, common
from hope_jax.training.together.run import Run, Shared
from hope_jax.training.workdir import check_folder, reopen


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
      Busy: another process trains in one of the folders.
      ValueError: the configurations differ in something else, a folder belongs to another
        one or to a run that is further than `steps`, or the data do not fit.
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
    workdirs = [local_path(workdir, "the work folder") for workdir in workdirs]
    for config, workdir in zip(configs, workdirs, strict=True):
        check_folder(workdir, config)  # before anything is written to another one
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
        shared = Shared(first, mesh, display)
        runs = [
            Run(shared, config, workdir, stack)
            for config, workdir in zip(configs, workdirs, strict=True)
        ]
        signals = stack.enter_context(StopSignals())  # one for all programs
        for start in sorted({run.start for run in runs}):
            equal = [run for run in runs if run.start == start]
            if signals.caught is None:
                _Program(shared, equal).train(signals)
            else:
                for run in equal:
                    run.outcome = Outcome(start, signals.caught, None)
    return [run.outcome for run in runs]


class _Program:
    """Runs that have come equally far, their states stacked along a first axis R."""

    def __init__(self, shared: Shared, runs: Sequence[Run]):
        self.shared, self.runs, self.config = shared, runs, shared.config
        self.places = replicated(shared.mesh)
        stack = jax.jit(lambda xs: jax.tree.map(lambda *x: jnp.stack(x), *xs))
        self.states: TrainState = stack([run.state for run in runs])
        for run in runs:
            run.state = None
        self.sources: dict[int, _Source] = {}  # by the seed of the data
        for run in runs:
            self.sources.setdefault(run.config.data.seed, _Source()).add(run)
        rates = np.array([run.config.optim.lr for run in runs], np.float32)
        self.rates_R = jax.device_put(rates, self.places)
        self.one = jax.jit(lambda tree, i: jax.tree.map(lambda x: x[i], tree))
        self.compile_seconds = 0.0

    def train(self, signals: StopSignals) -> None:
        """Train all to their end, or until a signal; sets their `outcome`."""
        config, step = self.config, self.runs[0].start
        for run in self.runs:
            run.clock.begin()  # other programs were not its own
        batch = self.read() if step < config.steps else None
        step_fn = None if batch is None else self.compile(batch)
        self.shared.display.begin(step)
        if config.enough is not None and step and step % config.eval_every == 0:
            self.evaluate(step, log=False)  # a run may have ended here
        running, stopping = None, signals.after(step)
        if step < config.steps and stopping is None:
            for _, run in self.at_work():
                reopen(run.workdir)
        with _all(run.clock.training() for run in self.runs):
            while step < config.steps and stopping is None and self.at_work():
                batch = self.read() if batch is None else batch
                with jax.transfer_guard("disallow"):
                    self.states, metrics = step_fn(self.rates_R, self.states, batch)
                step, batch = step + 1, None
                if running is not None:
                    self.take(*running)  # the step before: the device has the next one
                running = step, metrics
                stopping = signals.after(step)
                last = step == config.steps or stopping is not None
                look = step % config.eval_every == 0 and stopping is None
                save = step % config.checkpoint_every == 0 or last
                if look or save:
                    self.take(*running)
                    running = None
                    with _all(run.paused() for run in self.runs):
                        if look:
                            self.evaluate(step)
                        if save:
                            self.save(step, last)
            for _, run in self.at_work():
                run.checkpoints.wait()
        readings = _Readings(self.shared.evaluator, self.states.params)
        for i, run in self.at_work():
            if step < config.steps:
                run.outcome = Outcome(step, stopping, None)
            else:
                self.finish(i, step, readings)

    def at_work(self) -> list[tuple[int, Run]]:
        """Runs that have not ended, with their numbers."""
        return [(i, run) for i, run in enumerate(self.runs) if run.outcome is None]

    def read(self) -> dict[str, jax.Array]:
        """The next batches of all runs."""
        found = {seed: source.read() for seed, source in self.sources.items()}
        batches = [found[run.config.data.seed] for run in self.runs]
        return jax.device_put(jax.tree.map(lambda *x: np.stack(x), *batches), self.places)

    def compile(self, batch: dict[str, jax.Array]) -> Callable[..., Any]:
        """The step of all runs: `(rates [R], states, batches) -> (states, metrics)`."""
        shared, config = self.shared, self.config
        losses = functools.partial(token_losses, shared.model)

        def step(lr: jax.Array, state: TrainState, batch: dict[str, jax.Array]):
            levels = make(config, shared.shapes, lr)
            return make_step(losses, levels, config, lr)(state, batch)

        began = time.perf_counter()
        steps = jax.jit(jax.vmap(step), donate_argnums=1, out_shardings=self.places)
        compiled = steps.lower(self.rates_R, self.states, batch).compile()
        self.compile_seconds = time.perf_counter() - began
        shared.display.say(
            f"{len(self.runs)} runs in one program, compiled in {self.compile_seconds:.1f} s; "
            "the loss shown is their median"
        )
        return compiled

    def take(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Take in a step of all runs; waits until the device has done it."""
        values = jax.device_get(metrics)
        for i, run in self.at_work():
            run.take(step, {name: value[i] for name, value in values.items()})
        self.shared.display.step(step)
        if step == 1 or step % self.config.log_every == 0:
            self.shared.display.log(step, {"loss": float(np.nanmedian(values["loss"]))})

    def save(self, step: int, last: bool) -> None:
        """A checkpoint of every run, as in `hope_jax.training.loop`."""
        for i, run in self.at_work():
            if last or run.log.bad_steps.streak == 0:
                run.save(self.one(self.states, i), step)

    def evaluate(self, step: int, log: bool = True) -> None:
        """Evaluate all runs, and finish those that know enough."""
        shared, config = self.shared, self.config
        readings = _Readings(shared.evaluator, self.states.params)
        for i, run in self.at_work():
            evaluator = readings.of(i)
            found = evaluator(None, shared.held_out, config.eval_batches)
            if log:
                run.log.evaluation(step, found)
            if knows_enough(config, None, evaluator, found, shared.tests):
                run.say(f"enough is right after {step} steps")
                run.save(self.one(self.states, i), step)
                self.finish(i, step, readings)

    def finish(self, i: int, step: int, readings: _Readings) -> None:
        """Write what came of a run."""
        shared, run = self.shared, self.runs[i]
        run.checkpoints.wait()
        known = run.clock.read()
        facts = RunFacts(
            parameters=sum(leaf.size for leaf in jax.tree.leaves(shared.shapes)),
            steps=step,
            skipped_steps=run.log.skipped,
            compile_seconds=self.compile_seconds,
            training_flops_per_token=shared.flops,
            peak=shared.peak,
            together=len(self.runs),
            **known | {"cpu_seconds": known["cpu_seconds"] / len(self.runs)},
        )
        params = self.one(self.states.params, i)
        trained = (run.config, run.workdir, facts, shared.model, params)
        data = (shared.data, shared.held_out, shared.tests)
        summary = conclude(*trained, *data, readings.of(i), shared.mesh, run.say)
        run.outcome = Outcome(step, None, summary)


class _Source:
    """Runs that read the same batches, each of which is made once for all of them."""

    def __init__(self):
        self._runs: list[Run] = []
        self._batch: dict[str, np.ndarray] | None = None

    def add(self, run: Run) -> None:
        """Let a run read along; it has come as far as the others."""
        if self._runs:
            run.batches.close()
            run.batches = self._runs[0].batches
        self._runs.append(run)

    def read(self) -> dict[str, np.ndarray]:
        """The next batch; the last one again if all runs have ended."""
        if self._batch is None or any(run.outcome is None for run in self._runs):
            with _all(run.inputs.measured() for run in self._runs):
                self._batch = next(self._runs[0].batches)
        return self._batch


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


@contextlib.contextmanager
def _all(contexts: Iterable[contextlib.AbstractContextManager]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield
