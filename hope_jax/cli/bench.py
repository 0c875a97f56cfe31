"""Measure HOPE, HOPE-Attention and Transformer++ in one process on the same shapes.

Training tokens per second and per CPU-second, memory, compile time, and decoding speed by
context. Writes bench.json and bench.png, and prints tables.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

HELP = "measure speed and memory of HOPE beside its baselines"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--quick", action="store_true", help="tiny shapes: does it run?")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="which models")
    parser.add_argument("--lengths", nargs="+", type=int, metavar="T", help="training lengths")
    parser.add_argument(
        "--contexts", nargs="*", type=int, metavar="T", help="tokens read before decoding"
    )
    for name, text in (
        ("rounds", "measurements of each; the models take turns"),
        ("dim", "model width"),
        ("depth", "blocks"),
        ("heads", "heads"),
        ("chunk", "tokens per memory chunk"),
        ("batch", "sequences per training step"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=text)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="activations")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), help="folder (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Measure, write and print."""
    from rich.console import Console

    from hope_jax.benchmark import QUICK, Settings, benchmark
    from hope_jax.benchmark.plot import write_plot
    from hope_jax.benchmark.table import print_tables

    names = [field.name for field in dataclasses.fields(Settings)]
    given = {name: getattr(args, name, None) for name in names}
    changes = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    settings = dataclasses.replace(QUICK if args.quick else Settings(), **changes)
    console = Console()
    results = benchmark(settings, args.out, console.print)
    write_plot(results, args.out / "bench.png")
    print_tables(results, console)
    console.print(f"written to {args.out}/bench.json and bench.png")
