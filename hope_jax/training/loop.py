"""Train: from a configuration to a trained model in a folder, through any interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from hope_jax.checkpoint import CheckpointManager
from hope_jax.config import TrainConfig
from hope_jax.config.paths import local_path
from hope_jax.data import Batches, open_dataset
from hope_jax.data.cache import prepared_corpus
from hope_jax.models import LanguageModel, abstract_params
from hope_jax.models.flops import flops_per_token
from hope_jax.nested import Levels
from hope_jax.optim import make
from hope_jax.parallel import (
    check_batch,
    describe_mesh,
    local_rows,
    make_mesh,
    place_batch,
    use_mesh,
)
from hope_jax.parallel.processes import is_main, on_main, wait_for_all
from hope_jax.training import finite
from hope_jax.training.answers import AnswerEvaluator, Answers
from hope_jax.training.clock import Clock
from hope_jax.training.compiled import lower_step
from hope_jax.training.conclude import conclude
from hope_jax.training.evaluate import Evaluation, Evaluator
from hope_jax.training.hosts import InputTimes
from hope_jax.training.identity import describe_run
from hope_jax.training.metrics import Several, open_writers
from hope_jax.training.progress import ProgressDisplay
from hope_jax.training.resume import resume_or_start
from hope_jax.training.signals import StopSignals
from hope_jax.training.speed import SpeedMeter, peak_flops
from hope_jax.training.state import to_snapshot
from hope_jax.training.step import checked
from hope_jax.training.steplog import StepLog
from hope_jax.training.summary import RunFacts
from hope_jax.training.tests_of_task import knows_enough, open_tests
from hope_jax.training.workdir import CHECKPOINTS, check_shared, claim, reopen


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
      step: training steps done.
      stopped: the signal that ended it before the last step, or None.
      summary: what `summary.json` holds; None if it was stopped or diverged.
      failed: why it diverged, of runs that are trained together (`train` raises).
    """

    step: int
    stopped: signal.Signals | None
    summary: dict[str, Any] | None
    failed: str | None = None


def train(
    config: TrainConfig, workdir: str | Path, *, change_optimizer: bool = False
) -> Outcome:
    """Train in `workdir`, or go on with the run that is there.

    After a kill at any moment the same call goes on from the newest good checkpoint and
    gives the same losses as an uninterrupted run, to the bit on one device. SIGTERM and
    Ctrl-C save first.

    Args:
      config: the run.
      workdir: its folder.
      change_optimizer: go on although `config.optim` differs from that of the run so far;
        see `hope_jax.training.resume`.

    Raises:
      Busy: another process trains in the folder.
      ValueError: the folder belongs to another configuration or is a checkpoint, the run there
        is further than `config.steps`, the data do not fit, or (`finite.NonFinite`) the run
        diverged.
      OSError: a checkpoint could not be written; the one before it is intact.
    """
    workdir = local_path(workdir, "the work folder")
    display = ProgressDisplay(config.steps, None if is_main() else Console(quiet=True))
    with contextlib.ExitStack() as stack:
        claimed = claim(workdir, config, change_optimizer)
        on_main(lambda: stack.enter_context(claimed))
        check_shared(workdir)
        stack.callback(display.close)

        # --------------------------------------------------------------- devices
        mesh = make_mesh(config.mesh)
        peak = peak_flops(mesh.devices.flatten().tolist())
        stack.enter_context(use_mesh(mesh))
        check_batch(config.data.batch // config.accumulate, _rows(config), mesh)
        if jax.device_count() > 1:
            display.say(f"mesh: {describe_mesh(mesh)}")

        # ------------------------------------------------------------------ data
        rows = local_rows(config.data.batch, mesh)
        task = config.data.task
        if config.data.path is None and (task is None or task.over == "text"):
            on_main(lambda: str(prepared_corpus()))  # once, before several open it
        data = open_dataset(config.data, split="train", rows=rows)
        held_out = open_dataset(config.data, data.tokenizer, split="validation", rows=rows)
        check_vocabulary(config, data)
        batches = iter(data)
        stack.callback(batches.close)

        # --------------------------------------------------- model and optimizer
        model = LanguageModel(config.model)
        shapes = abstract_params(config.model)
        levels = make(config, shapes)
        tests = open_tests(config, data.tokenizer, mesh)
        evaluator = (Evaluator if task is None else AnswerEvaluator)(model, mesh)

        # ------------------------------------- state: resume, else start from nothing
        checkpoints = CheckpointManager(
            workdir / CHECKPOINTS, config.keep_checkpoints, display.say
        )
        stack.callback(checkpoints.close)
        state, start, before = resume_or_start(
            config, levels, checkpoints, batches, mesh, display.say, change_optimizer
        )
        if start:
            display.say(f"going on from step {start}")
        run = describe_run(config, data.tokenizer)
        clock = Clock(workdir if is_main() else None, **before)

        # --------------------------------------------------------------- compile
        compile_seconds = 0.0
        if start < config.steps:
            began = time.perf_counter()
            step_fn = lower_step(config, levels, mesh, state).compile()
            compile_seconds = time.perf_counter() - began
            display.say(f"compiled the training step in {compile_seconds:.1f} s")

        # ---------------------------------------------------------------- the loop
        writers = open_writers(workdir, start) if is_main() else Several([])
        stack.callback(writers.close)
        flops = flops_per_token(config.model, config.data.length).training
        meter = SpeedMeter(flops, peak)
        bad_steps = finite.BadSteps(config.max_bad_steps, tensor_names(levels, shapes))
        inputs = InputTimes()
        log = StepLog(
            config, display, writers, meter, clock, inputs, bad_steps, int(state.skipped)
        )

        def save(step: int) -> None:
            with meter.paused(), clock.paused():
                position = {"data": batches.get_state(), "clock": clock.read()}
                checkpoints.save(to_snapshot(state, step, position, run))

        display.begin(start)

        def evaluated() -> tuple[Evaluation | Answers, bool]:
            with meter.paused(), clock.paused():
                found = evaluator(state.params, held_out, config.eval_batches)
                return found, knows_enough(config, state.params, evaluator, found, tests)

        step, running, stopping, done = start, None, None, False
        if config.enough is not None and start and start % config.eval_every == 0:
            done = evaluated()[1]  # the run may have ended here
        if step < config.steps and not done:
            on_main(lambda: reopen(workdir))
        try:
            with StopSignals() as signals, clock.training():
                while step < config.steps and stopping is None and not done:
                    with inputs.measured():
                        batch = place_batch(next(batches), rows, config.data.batch, mesh)
                    with jax.transfer_guard("disallow"):
                        state, metrics = step_fn(state, batch)
                    step += 1
                    if running is not None:
                        log.take(*running)  # the step before: the device has the next one
                    running = (step, metrics)
                    stopping = signals.after(step)
                    if step % config.eval_every == 0 and stopping is None:
                        log.take(*running)
                        running = None
                        found, done = evaluated()
                        log.evaluation(step, found)
                    last = step == config.steps or stopping is not None or done
                    checkpoint = step % config.checkpoint_every == 0 or last
                    if checkpoint and running is not None:
                        log.take(*running)
                        running = None
                    # a step that was skipped changed nothing: only the last one is worth a
                    # checkpoint, so that bad ones do not push good ones out
                    if checkpoint and (last or bad_steps.streak == 0):
                        save(step)
                checkpoints.wait()
        except finite.NonFinite as error:
            checkpoints.wait()
            left = checkpoints.newest()
            rest = "Nothing was saved" if left is None else f"Checkpoint {left} is intact"
            raise finite.NonFinite(f"{error}. {rest}") from None
        if step < config.steps and not done:
            return Outcome(step, stopping, None)
        if done:
            display.say(f"enough is right after {step} steps")

        # --------------------------------------------------------- what came of it
        display.close()
        facts = RunFacts(
            parameters=sum(leaf.size for leaf in jax.tree.leaves(shapes)),
            steps=step,
            skipped_steps=log.skipped,
            compile_seconds=compile_seconds,
            training_flops_per_token=flops,
            peak=peak,
            **clock.read(),
        )
        trained = (config, workdir, facts, model, state.params)
        summary = conclude(*trained, data, held_out, tests, evaluator, mesh, display.say)
        wait_for_all("the end")  # of which the main process may have more to do
        return Outcome(step, None, summary)


def check_vocabulary(config: TrainConfig, data: Batches) -> None:
    """Raise `ValueError` if the data have tokens that the model does not know."""
    task = config.data.task
    if task is not None and task.answers == "legal":
        if data.vocab_size != config.model.vocab_size:
            raise ValueError(
                f"task {task.type} asks which of its {data.vocab_size} symbols may come next, "
                f"and model.vocab_size is {config.model.vocab_size}; set it to "
                f"{data.vocab_size}"
            )
    elif data.vocab_size > config.model.vocab_size:
        raise ValueError(
            f"the data have {data.vocab_size} token ids (tokenizer {data.tokenizer.name}) and "
            f"model.vocab_size is {config.model.vocab_size}; set it to at least "
            f"{data.vocab_size}"
        )


def _rows(config: TrainConfig) -> str:
    parts = f" / accumulate {config.accumulate}" if config.accumulate > 1 else ""
    return f"data.batch {config.data.batch}{parts}"


def tensor_names(levels: Levels, shapes: Any) -> list[str]:
    """Names for the indices that the step gives as `bad_tensor`."""
    states = jax.eval_shape(levels.init, shapes)
    info = jax.eval_shape(levels.step, shapes, states, shapes)[2]
    return finite.names(checked(shapes, 0.0, shapes, 0.0, info))
