"""The end of a run: held-out loss, plots, a sample, and `summary.json`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from hope_jax.config import TrainConfig
from hope_jax.data import Dataset
from hope_jax.data.ngram import ngram_loss
from hope_jax.inference import generate
from hope_jax.inference.reading import beginning, encode
from hope_jax.models import LanguageModel
from hope_jax.parallel.processes import is_main
from hope_jax.training.evaluate import Evaluation, Evaluator
from hope_jax.training.metrics import LOG, read_log
from hope_jax.training.plots import by_bin, loss_curve, position_curve
from hope_jax.training.summary import RunFacts, write_summary

HELD_OUT_TOKENS = 200_000  # the final figures use at most this much held-out text
COUNTED_TOKENS = 50_000_000  # n-gram models are counted on training text up to this size
ON, OFF = "memory writes on", "memory writes off"


@dataclasses.dataclass(frozen=True)
class Results:
    """What the trained model can do on held-out text.

    Attributes:
      final: reading as in training.
      frozen: reading without writing to the memories; None without memories, or if the
        configuration does not ask for it.
      baselines: n-gram models of the same training text on the same held-out text, by
        name, in nats per token; empty for other than byte-level data, or if the
        configuration does not ask for them.
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
    mesh: Mesh,
    say: Callable[[str], Any],
) -> dict[str, Any]:
    """Evaluate, draw, sample, tell, and write `summary.json`; returns its content."""
    results = _evaluate(config, params, data, held_out, evaluator)
    if is_main():
        _draw(config, workdir, results)
    for line in _told(results):
        say(line)
    sample = None
    if config.sample_tokens and jax.process_count() > 1:
        say("no sample: the weights are spread over processes; use hope generate")
    elif config.sample_tokens and not _begins(config, model, data):
        say(
            "no sample: the tokenizer gives no token for sample_prompt "
            f"{config.sample_prompt!r}; set sample_prompt to some text"
        )
    elif config.sample_tokens:
        sample = generate(
            model,
            params,
            data.tokenizer,
            config.sample_prompt,
            tokens=config.sample_tokens,
            seed=config.seed,
        ).text
        say(f"\nsample:\n{config.sample_prompt}{sample}\n")
    found = {
        "held_out": _figures(results.final),
        "held_out_without_writes": results.frozen and _figures(results.frozen),
        "baselines": results.baselines,
        "sample": sample,
    }
    return write_summary(config, workdir, facts, mesh, found)


def _evaluate(
    config: TrainConfig, params: Any, data: Dataset, held_out: Dataset, evaluator: Evaluator
) -> Results:
    count = max(HELD_OUT_TOKENS // (config.data.batch * config.data.length), 1)

    final = evaluator(params, held_out, count)
    frozen = None
    if config.position_plot and final.write_events:
        frozen = evaluator(params, held_out, count, writes=False)
    counted = config.ngrams and is_main()
    baselines = _baselines(data, held_out, final.tokens) if counted else {}
    return Results(final, frozen, baselines)


def _begins(config: TrainConfig, model: LanguageModel, data: Dataset) -> bool:
    """Whether there is a token that a sample can go on from; some vocabularies drop blanks."""
    prompt_T = encode(model, data.tokenizer, config.sample_prompt)
    return len(beginning(model, data.tokenizer)) + len(prompt_T) > 0


def _baselines(data: Dataset, held_out: Dataset, tokens: int) -> dict[str, float]:
    """Loss of smoothed byte n-gram models on the text that the model was evaluated on."""
    train_tokens = data.manifest.splits["train"].tokens
    if data.tokenizer.name != "byte" or train_tokens > COUNTED_TOKENS:
        return {}
    counted, text = data.tokens(), held_out.tokens()[: tokens + 1]
    return {f"byte {n}-gram": ngram_loss(counted, text, order=n) for n in (3, 5)}


def _draw(config: TrainConfig, workdir: Path, results: Results) -> None:
    loss_curve(read_log(workdir / LOG), workdir / "loss.png", results.baselines)
    if config.position_plot:
        losses = {ON: results.final.loss_by_position}
        if results.frozen:
            losses[OFF] = results.frozen.loss_by_position
        position_curve(losses, workdir / "loss_by_position.png")


def _told(results: Results) -> list[str]:
    final, frozen = results.final, results.frozen
    lines = [f"{final.line()}  on {final.tokens:,} tokens"]
    lines += [
        f"  {name} model on the same text: loss {loss:.4f}, bits/byte {loss / math.log(2):.4f}"
        for name, loss in results.baselines.items()
    ]
    if frozen:
        gain = frozen.loss - final.loss
        lines.append(f"  {OFF}: {frozen.loss:.4f}; the writes are worth {gain:.4f} nats")
        ends = (by_bin(e.loss_by_position)[-4:] for e in (final, frozen))
        for (first, last, on), (_, _, off) in zip(*ends, strict=True):
            lines.append(f"    positions {first}-{last}: on {on:.4f}, off {off:.4f}")
    return lines


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    return dataclasses.asdict(evaluation) | {"perplexity": evaluation.perplexity}
