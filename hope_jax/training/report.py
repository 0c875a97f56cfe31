"""The end of a run: held-out loss, plots, a sample, and `summary.json`."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hope_jax.config import TrainConfig, to_dict
from hope_jax.data import Dataset
from hope_jax.inference import generate
from hope_jax.models import LanguageModel
from hope_jax.training.evaluate import Evaluation, Evaluator
from hope_jax.training.identity import device, versions
from hope_jax.training.metrics import LOG, read_log
from hope_jax.training.plots import bins, loss_curve, position_curve
from hope_jax.training.speed import Peak
from hope_jax.training.workdir import SUMMARY

HELD_OUT_TOKENS = 500_000  # the final figures use at most this much held-out text
ON, OFF = "memory writes on", "memory writes off"


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What the loop knows about a finished run."""

    parameters: int
    steps: int
    skipped_steps: int
    compile_seconds: float
    wall_seconds: float
    cpu_seconds: float
    peak: Peak | None


@dataclasses.dataclass(frozen=True)
class Results:
    """What the trained model can do on held-out text.

    Attributes:
      final: reading as in training.
      frozen: reading without writing to the memories; None without memories, or if the
        configuration does not ask for it.
      baselines: n-gram models of the same training text on the same held-out text, by
        name, in nats per token; empty for other than byte-level data.
    """

    final: Evaluation
    frozen: Evaluation | None
    baselines: dict[str, float]


def report(
    config: TrainConfig,
    workdir: Path,
    facts: RunFacts,
    model: LanguageModel,
    params: Any,
    data: Dataset,
    held_out: Dataset,
    evaluator: Evaluator,
    say: Callable[[str], Any],
) -> dict[str, Any]:
    """Evaluate, draw, sample, tell, and write `summary.json`; returns its content."""
    results = _evaluate(config, params, held_out, evaluator)
    _draw(config, workdir, results)
    for line in _told(results):
        say(line)
    sample = None
    if config.sample_tokens:
        sample = generate(
            model,
            params,
            data.tokenizer,
            config.sample_prompt,
            tokens=config.sample_tokens,
            seed=config.seed,
        ).text
        say(f"\nsample:\n{config.sample_prompt}{sample}\n")
    summary = {
        "config": to_dict(config),
        "versions": versions(),
        "device": device(),
        "seeds": {"parameters": config.seed, "data": config.data.seed},
        **dataclasses.asdict(facts),
        "tokens": facts.steps * config.data.batch * config.data.length,
        "held_out": _figures(results.final),
        "held_out_without_writes": results.frozen and _figures(results.frozen),
        "baselines": results.baselines,
        "sample": sample,
    }
    temporary = workdir / f"{SUMMARY}.tmp"
    temporary.write_text(json.dumps(summary, indent=2) + "\n")
    temporary.replace(workdir / SUMMARY)
    return summary


def _evaluate(
    config: TrainConfig, params: Any, held_out: Dataset, evaluator: Evaluator
) -> Results:
    count = max(HELD_OUT_TOKENS // (config.data.batch * config.data.length), 1)

    def read(*, writes: bool) -> Evaluation:
        return evaluator(params, itertools.islice(iter(held_out), count), writes=writes)

    final = read(writes=True)
    frozen = read(writes=False) if config.position_plot and final.write_events else None
    return Results(final, frozen, {})


def _draw(config: TrainConfig, workdir: Path, results: Results) -> None:
    loss_curve(read_log(workdir / LOG), workdir / "loss.png", results.baselines)
    if config.position_plot:
        losses = {ON: results.final.loss_by_position}
        if results.frozen:
            losses[OFF] = results.frozen.loss_by_position
        position_curve(losses, workdir / "loss_by_position.png")


def _told(results: Results) -> list[str]:
    final, frozen = results.final, results.frozen
    lines = [
        f"held-out text, {final.tokens:,} tokens: loss {final.loss:.4f}, perplexity "
        f"{final.perplexity:.3f}, bits/byte {final.bits_per_byte:.4f}; "
        f"{final.write_events:,} memory updates"
    ]
    lines += [f"  beside it: {name} {loss:.4f}" for name, loss in results.baselines.items()]
    if frozen:
        gain = frozen.loss - final.loss
        lines.append(f"  {OFF}: {frozen.loss:.4f}; the writes are worth {gain:.4f} nats")
        edges = bins(len(final.loss_by_position))
        for a, b in zip(edges[-5:], edges[-4:], strict=False):
            on, off = (sum(e.loss_by_position[a:b]) / (b - a) for e in (final, frozen))
            lines.append(f"    positions {a + 1}-{b}: on {on:.4f}, off {off:.4f}")
    return lines


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    return dataclasses.asdict(evaluation) | {"perplexity": evaluation.perplexity}
