"""The benchmark: compile every case, then let the models take turns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hope_jax.benchmark.cases import Settings
from hope_jax.benchmark.decoding import DecodeCase
from hope_jax.benchmark.results import Results, machine, write_json
from hope_jax.benchmark.training import TrainCase


def benchmark(
    settings: Settings, out: str | Path, say: Callable[[str], None] = print
) -> Results:
    """Measure everything that `settings` names and write `out`/bench.json.

    The file is written after every round, so that a run that is stopped leaves what it
    has. Within a round the models take turns at each length: what disturbs the machine
    disturbs all of them, and ratios are taken within a round.

    Args:
      settings: what to measure.
      out: folder, made when it is not there.
      say: called with lines that tell how far it is.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    results = Results(settings, machine())
    for length in settings.lengths:
        cases = []
        for model in settings.models:
            case = TrainCase(model, length, settings)
            cases.append(case)
            results.training.append(case.result)
            say(
                f"train {model} T={length}: compiled in {case.result.compile.wall:.1f} s"
                + (f"; skipped: {case.result.skipped}" if case.result.skipped else "")
            )
        _rounds(cases, f"train T={length}", results, out, say)
    for context in settings.contexts:
        cases = [DecodeCase(model, context, settings) for model in settings.models]
        results.decoding += [case.result for case in cases]
        _rounds(cases, f"decode after {context}", results, out, say)
    return results


def _rounds(cases, what: str, results: Results, out: Path, say: Callable[[str], None]) -> None:
    for number in range(results.settings.rounds):
        for case in cases:
            case.measure()
        write_json(results, out / "bench.json")
        say(f"{what}: round {number + 1} of {results.settings.rounds}")
