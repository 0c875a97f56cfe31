"""The results as tables for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from hope_jax.benchmark.cases import REFERENCE
from hope_jax.benchmark.results import Results, decoding_speed


def print_tables(results: Results, console: Console) -> None:
    """Print training, decoding and the growth of the time per token."""
    s = results.settings
    console.print(
        f"width {s.dim}, depth {s.depth}, heads {s.heads}, chunk {s.chunk}, {s.dtype}, "
        f"on {results.machine['processor']}"
    )
    console.print(_speed(results))
    console.print(_cost(results))
    if results.decoding:
        console.print(_decoding(results))
    for model, factor in results.flatness().items():
        shortest, *_, longest = results.lengths(model)
        console.print(
            f"{model}: time per token at T={longest} is {factor:.2f} times that at T={shortest}"
        )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == "model" else "right")
    return table


def _speed(results: Results) -> Table:
    table = _table(
        f"Training, batch {results.settings.batch}",
        "T",
        "model",
        "tok/s",
        "tok/CPU-s",
        f"of {REFERENCE}",
        "GFLOP/CPU-s",
    )
    for case in results.training:
        speed = results.training_speed(case)
        ratio = "skipped" if case.skipped else ""
        if "ratio" in speed:
            low, high = speed["ratio_range"]
            ratio = f"{speed['ratio']:.2f} ({low:.2f}-{high:.2f})"
        table.add_row(
            str(case.length),
            case.model,
            _number(speed.get("tokens_per_second")),
            _number(speed.get("tokens_per_cpu_second")),
            ratio,
            _number(speed.get("flops_per_cpu_second"), 1e9, 1),
        )
    return table


def _cost(results: Results) -> Table:
    table = _table(
        "Cost of a training step",
        "T",
        "model",
        "params",
        "MFLOP/tok",
        "compile s (CPU)",
        "step MiB",
        "process MiB",
    )
    for case in results.training:
        table.add_row(
            str(case.length),
            case.model,
            f"{case.params / 1e6:.2f} M",
            _number(case.flops_per_token, 1e6, 1),
            f"{case.compile.wall:.1f} ({case.compile.cpu:.1f})",
            _number(case.compiled_bytes, 2**20),
            _number(case.process_bytes or None, 2**20),
        )
    return table


def _decoding(results: Results) -> Table:
    columns = ("context", "model", "tok/s", "tok/CPU-s", "state KiB", "prefill s")
    table = _table("Decoding, batch 1", *columns)
    for case in results.decoding:
        speed = decoding_speed(case)
        table.add_row(
            str(case.context),
            case.model,
            _number(speed.get("tokens_per_second")),
            _number(speed.get("tokens_per_cpu_second")),
            _number(case.state_bytes or None, 2**10),
            _number(speed.get("prefill_seconds"), 1, 2),
        )
    return table


def _number(value: float | None, unit: float = 1, digits: int = 0) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"
