"""Train every point of an experiment file's sweep(), each in a folder of its own.

Finished points are skipped and stopped ones go on, so the command can be repeated; a run that
fails does not stop the others. On a cluster, `--index` runs one point: give it the index of
the array job or of the job's completion.

examples:
  hope sweep experiments/optimizers/wikitext.py --list
  hope sweep experiments/optimizers/wikitext.py --local 2 --set data.path=data/wikitext-2
  hope sweep experiments/optimizers/wikitext.py --index $JOB_COMPLETION_INDEX
  hope report runs/wikitext --best optim.lr
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

HELP = "train all points of a sweep, or one of them by its index"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of `hope sweep`."""
    parser.add_argument(
        "file", metavar="FILE", help="an experiment file with sweep(); FILE:NAME names one"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="print the points and their state")
    what.add_argument("--index", type=int, metavar="I", help="run the point of this number")
    what.add_argument("--local", type=int, metavar="N", help="run all here, N at a time")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a field of all points, e.g. --set steps=100; may be given several times",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="folder of the runs' folders (default: runs/NAME, NAME from the file)",
    )


def run(args: argparse.Namespace) -> int:
    """List, or train; 1 if a run failed."""
    from hope_jax.config.sweeps import load_sweep

    points = load_sweep(args.file, args.set)
    folder = args.workdir or Path("runs") / Path(args.file.partition(":")[0]).stem
    if args.list:
        _list(points, folder)
        return 0
    if args.index is not None and not 0 <= args.index < len(points):
        raise ValueError(f"--index {args.index}: the points are 0 to {len(points) - 1}")
    if args.local is not None and args.local < 1:
        raise ValueError(f"--local {args.local}: run at least 1 at a time")

    from hope_jax.sweeps import run_points
    from hope_jax.sweeps.report import COMMAND

    folder.mkdir(parents=True, exist_ok=True)
    sets = "".join(f" --set {shlex.quote(item)}" for item in args.set)
    (folder / COMMAND).write_text(f"hope sweep {args.file} --local 1{sets}\n")
    chosen = points if args.index is None else [points[args.index]]
    endings = run_points(chosen, folder, args.local or 1)
    failed = [ending for ending in endings if ending.how == "failed"]
    for ending in failed:
        print(f"failed: {ending.point.name}, see {ending.log}")
    print(f"{len(endings) - len(failed)} of {len(endings)} runs are in {folder}")
    return 1 if failed else 0


def _list(points, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("index", "name", "state"):
        table.add_column(name, overflow="fold")
    for index, point in enumerate(points):
        workdir = folder / point.name
        state = "begun" if workdir.exists() else ""
        if (workdir / "summary.json").exists():
            state = "finished"
        table.add_row(str(index), point.name, state)
    Console().print(table)
