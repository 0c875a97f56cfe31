"""The end of a run on a task: right answers, a plot, examples, and `summary.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hope_jax.config import TrainConfig
from hope_jax.config.tasks import answers_of
from hope_jax.data import TaskData
from hope_jax.data.tasks.show import shown
from hope_jax.models import LanguageModel
from hope_jax.parallel.processes import is_main
from hope_jax.training.answers import AnswerEvaluator
from hope_jax.training.metrics import LOG, read_log
from hope_jax.training.plots import accuracy_curve, loss_curve
from hope_jax.training.summary import RunFacts, write_summary

EXAMPLES = 1000  # that the final figures are taken from, at least
SHOWN = 2


def report_task(
    config: TrainConfig,
    workdir: Path,
    facts: RunFacts,
    model: LanguageModel,
    params: Any,
    held_out: TaskData,
    tests: dict[str, TaskData],
    evaluator: AnswerEvaluator,
    mesh: Mesh,
    say: Callable[[str], Any],
) -> dict[str, Any]:
    """Evaluate, draw, show, tell, and write `summary.json`; returns its content.

    `tests` are those of `hope_jax.training.tests_of_task.open_tests`.
    """
    count = _batches(config, held_out)
    final, frozen = evaluator(params, held_out, count), None
    for line in (final.line(), *final.depth_lines()):
        say(line)
    if config.position_plot and final.write_events:
        frozen = evaluator(params, held_out, count, writes=False)
        say(f"  memory writes off:\n  {frozen.line()}")
    of_tests = {
        text: evaluator(params, data, _batches(config, data)) for text, data in tests.items()
    }
    for text, answers in of_tests.items():
        say("\n".join([f"  {text}:\n  {answers.line()}", *answers.depth_lines()]))
    if is_main():
        records = read_log(workdir / LOG)
        loss_curve(records, workdir / "loss.png", {})
        accuracy_curve(records, workdir / "accuracy.png", final.chance)
    if jax.process_count() == 1:
        for lines in _answered(config, model, params, held_out):
            say(lines)
    found = {
        "held_out": dataclasses.asdict(final),
        "held_out_without_writes": frozen and dataclasses.asdict(frozen),
        "tests": {text: dataclasses.asdict(answers) for text, answers in of_tests.items()},
    }
    return write_summary(config, workdir, facts, mesh, found)


def _batches(config: TrainConfig, data: TaskData) -> int:
    return max(-(-EXAMPLES // data.batch), config.eval_batches)


def _answered(
    config: TrainConfig, model: LanguageModel, params: Any, held_out: TaskData
) -> list[str]:
    """Examples with what the model answers, as lines of text."""
    examples = [held_out.source.example(number) for number in range(SHOWN)]
    scores, kind = [None] * SHOWN, "tokens"
    if not config.model.cms.in_context.on:  # its answers take another way through the model
        inputs_BT = np.stack([example.inputs_T for example in examples])
        logits_BTW = jax.jit(model.apply)({"params": params}, inputs_BT).logits_BTW
        scores, kind = np.asarray(logits_BTW, np.float32), answers_of(config.data.task)
    return [
        shown(example, held_out.tokenizer, scores_TW, kind)
        for example, scores_TW in zip(examples, scores, strict=True)
    ]
