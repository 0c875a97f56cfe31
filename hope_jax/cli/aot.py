"""Compile a configuration for a TPU slice, without a TPU: does it fit, what crosses chips.

The real step is compiled by the TPU compiler on this machine. What is told per device:
bytes by component and at the peak, against what a program may use; the least time of a step
by the chip's peak and by its memory, both by count; bytes received by kind of collective, and
any that splitting the weights does not explain. No step time is predicted.

The exit status is 0 if it fits, 1 if it does not, 2 for a mistake, and 70 if the compiler gave
no answer: it crashed or was killed.

examples:
  hope aot --config experiments/hope_1b.py --topology v5e-64
  hope aot --config experiments/hope_1b.py --topology v5p-256 --slices 2 --set mesh.tensor=2
  hope aot --config experiments/hope_340m.py --topology v5e-16 --program decode \\
      --set data.batch=64
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hope_jax.cli.arguments import add_config, check_writable
from hope_jax.cli.ending import sigterm_as_exit

HELP = "compile for a TPU slice without a TPU: memory, collectives, floor of a step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of `hope aot`."""
    add_config(parser)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="SLICE",
        help="a slice, such as v5e-64, v5p-256, v6e-256, tpu7x-128, or v5p:4x4x12",
    )
    parser.add_argument(
        "--slices", type=int, default=1, metavar="N", help="how many (default 1)"
    )
    parser.add_argument(
        "--program",
        choices=("train", "decode"),
        default="train",
        help="the training step, or one more token for data.batch streams",
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--hlo", type=Path, metavar="FILE", help="keep the compiled program")


def run(args: argparse.Namespace) -> int:
    """Print the report; exit status 1 if it does not fit."""
    from hope_jax.aot import compile_for
    from hope_jax.config.load import load_config

    if args.slices < 1:
        raise ValueError(f"--slices {args.slices}; use at least 1")
    if args.hlo:
        check_writable("--hlo", args.hlo)
    config = load_config(args.config, args.set)
    if sys.stderr.isatty():
        print(f"compiling for {args.topology}; this takes a minute or two", file=sys.stderr)
    with sigterm_as_exit():
        report = compile_for(
            config, args.topology, slices=args.slices, program=args.program, keep=args.hlo
        )
    print(report.to_json() if args.json else "\n".join(report.lines()))
    return 0 if report.fits else 1
