"""Compare finished runs: a table with spread over seeds, plots, and a page of Markdown.

Runs that differ in seeds alone are one line. `--best optim.lr` shows every other
configuration at its best learning rate, with the losses at all of them beside it.

examples:
  hope report runs/wikitext --best optim.lr
  hope report runs --out experiments/results/comparison
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "compare finished runs in a table with plots"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of `hope report`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder with runs below it")
    parser.add_argument("--best", metavar="FIELD", help="a field that was tuned")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the page goes (default: the folder)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the page and print it."""
    if not args.folder.is_dir():
        raise ValueError(f"there is no folder {args.folder}; give one with finished runs")

    from hope_jax.sweeps import write_report

    print(write_report(args.folder, args.out, args.best))
    print(f"written to {(args.out or args.folder) / 'report.md'}")
