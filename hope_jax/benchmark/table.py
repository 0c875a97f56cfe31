"""The results as tables for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from hope_jax.benchmark.cases import REFERENCE
from hope_jax.benchmark.results import Results, decoding_speed


def print_tables(results: Results, console: Console) -> None:
    """Print training, decoding and the growth of the time per token."""
    s = results.settings
    title = f"width {s.dim}, depth {s.depth}, heads {s.heads}, chunk {s.chunk}, {s.dtype}"
    console.print(_training(results, f"Training, batch {s.batch}, {title}"))
    if results.decoding:
        console.print(_decoding(results, "Decoding, batch 1"))
    for model, factor in results.flatness().items():
        console.print(
            f"{model}: time per token at T={max(s.lengths)} is {factor:.2f} times that at "
            f"T={min(s.lengths)}"
        )


def _training(results: Results, title: str) -> Table:
    table = Table(title=title)
    for column in ("T", "model", "parameters", "tok/s", "tok/CPU-s", f"of {REFERENCE}"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for column in ("MFLOP/tok", "GFLOP/CPU-s", "compile s", "compiled MiB", "process MiB"):
        table.add_column(column, justify="right")
    for case in results.training:
        speed = results.training_speed(case)
        ratio = ""
        if "ratio" in speed:
            low, high = speed["ratio_range"]
            ratio = f"{speed['ratio']:.2f} ({low:.2f}-{high:.2f})"
        table.add_row(
            str(case.length),
            case.model,
            f"{case.params / 1e6:.2f} M",
            _number(speed.get("tokens_per_second")),
            _number(speed.get("tokens_per_cpu_second")),
            ratio or ("skipped" if case.skipped else ""),
            _number(case.flops_per_token, 1e6, 1),
            _number(speed.get("flops_per_cpu_second"), 1e9, 1),
            f"{case.compile.wall:.1f}",
            _number(case.compiled_bytes, 2**20),
            _number(case.process_bytes or None, 2**20),
        )
    return table


def _decoding(results: Results, title: str) -> Table:
    table = Table(title=title)
    for column in ("context", "model", "tok/s", "tok/CPU-s", "state KiB", "prefill s"):
        table.add_column(column, justify="left" if column == "model" else "right")
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
