"""Train every point of an experiment file's sweep(), each in a folder of its own.

Finished points are skipped and stopped ones go on, so the command can be repeated; a run that
fails does not stop the others. A point that another process is training is left to that one, so
several sweeps may share a folder. On a cluster, `--index` runs one point: give it the index of
the array job or of the job's completion.

With `--tune FIELD`, points that differ in FIELD alone are a row. A row goes on beyond its end
for as long as the best is there (the lowest held-out loss; of tasks the fewest wrong answers,
tests included), and its best value is then run with more seeds. `--list`, `--count` and
`--index` count rows.

With `--together N`, up to N runs that differ in seeds and learning rate alone are one program
in one process, which compiles once: for accelerators that a small model leaves idle. With
--tune every value is then run with all seeds.

Ctrl-C and SIGTERM let the runs at work save first; the exit status is then 130 or 143. It is
2 if all that is missing failed by a mistake, which would be one again, 75 if all of it is being
trained by other processes, 1 otherwise.

examples:
  hope sweep experiments/optimizers/wikitext.py --list
  hope sweep experiments/optimizers/wikitext.py --local 2 --set data.path=data/wikitext-2
  hope sweep experiments/optimizers/wikitext.py --index $JOB_COMPLETION_INDEX
  hope sweep experiments/optimizers/wikitext.py --local 2 --tune optim.lr --seeds 3
  hope sweep experiments/optimizers/wikitext.py --local 1 --tune optim.lr --together 9
  hope report runs/wikitext --best optim.lr
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from hope_jax.cli.ending import sigterm_as_exit

HELP = "train all points of a sweep, or one of them by its index"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of `hope sweep`."""
    parser.add_argument(
        "file", metavar="FILE", help="an experiment file with sweep(); FILE:NAME names one"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="print the points and their state")
    what.add_argument(
        "--count", action="store_true", help="print how many there are, for an array of jobs"
    )
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
        "--tune",
        metavar="FIELD[=V,V,...]",
        help="find the best value of this field in every row, which begins with the values of "
        "sweep() or with these",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=None,
        metavar="N",
        help="with --tune: runs of the best value, its first included (default: 3)",
    )
    parser.add_argument(
        "--together",
        type=int,
        default=1,
        metavar="N",
        help="up to so many runs in one program, on one device (default: 1)",
    )
    parser.add_argument(
        "--discard-checkpoints",
        action="store_true",
        help="remove the checkpoints of finished runs",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="folder of the runs' folders (default: runs/NAME, NAME from the file)",
    )


def run(args: argparse.Namespace) -> int:
    """List, or train; the exit status tells what is missing."""
    from hope_jax.config.load import split_variant
    from hope_jax.config.paths import local_path
    from hope_jax.config.sweeps import load_sweep

    points = load_sweep(args.file, args.set)
    name = Path(split_variant(args.file)[0]).stem
    folder = local_path(args.workdir or Path("runs") / name, "--workdir")
    rows = _rows(points, args)
    if args.together < 1:
        raise ValueError(f"--together {args.together}: use at least 1 run in a program")
    if args.list:
        _list(points if rows is None else rows, folder)
        return 0
    what = points if rows is None else rows
    if args.count:
        print(len(what))
        return 0
    if args.index is not None and not 0 <= args.index < len(what):
        kind = "points" if rows is None else "rows"
        raise ValueError(f"--index {args.index}: the {kind} are 0 to {len(what) - 1}")
    if args.local is not None and args.local < 1:
        raise ValueError(f"--local {args.local}: run at least 1 at a time")

    from hope_jax.sweeps import is_finished, run_points, tune_rows
    from hope_jax.sweeps.report import COMMAND

    chosen = what if args.index is None else [what[args.index]]
    for item in chosen:
        for point in getattr(item, "points", [item]):
            is_finished(folder, point)  # a refused sweep leaves the folder as it was
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COMMAND).write_text(_command(args) + "\n")
    at_once, keep = args.local or 1, not args.discard_checkpoints
    with sigterm_as_exit():  # runs are in sessions of their own, and are told
        if rows is None:
            endings = run_points(
                chosen, folder, at_once, keep_checkpoints=keep, together=args.together
            )
        else:
            endings = tune_rows(
                chosen,
                _tuned(args.tune)[0],
                folder,
                seeds=args.seeds or 3,
                at_once=at_once,
                keep_checkpoints=keep,
                together=args.together,
            )
    failed = [ending for ending in endings if ending.how == "failed"]
    busy = [ending for ending in endings if ending.how == "busy"]
    for ending in failed:
        print(f"failed: {ending.point.name}, see {ending.log}")
    for ending in busy:
        print(f"busy: {ending.point.name}; repeat the command when its process has ended")
    print(f"{len(endings) - len(failed) - len(busy)} of {len(endings)} runs are in {folder}")
    if not failed:
        return os.EX_TEMPFAIL if busy else 0
    return 2 if not busy and all(ending.status == 2 for ending in failed) else 1


def _rows(points, args: argparse.Namespace):
    """Rows of the tuned field, or None."""
    if args.tune is None:
        if args.seeds is not None:
            raise ValueError(
                "--seeds belongs to --tune; without it, seeds are points of sweep()"
            )
        return None
    if args.seeds is not None and args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds}: use at least 1")
    from hope_jax.sweeps import rows_of

    field, values = _tuned(args.tune)
    clash = [item for item in args.set if item.partition("=")[0] in (field, "seed")]
    if clash:
        raise ValueError(f"--set {clash[0]}: --tune {field} chooses it")
    return rows_of(points, field, values)


def _tuned(text: str) -> tuple[str, list[float] | None]:
    """The field, and the values to begin with if there are any.

    >>> _tuned("optim.lr"), _tuned("optim.lr=1e-3,3e-3")
    (('optim.lr', None), ('optim.lr', [0.001, 0.003]))
    """
    field, given, values = text.partition("=")
    if not given:
        return field, None
    try:
        return field, [float(value) for value in values.split(",")]
    except ValueError:
        raise ValueError(
            f"--tune {text}: give numbers with commas between them, such as {field}=1e-3,3e-3"
        ) from None


def _command(args: argparse.Namespace) -> str:
    """What makes all of the runs, wherever they were made."""
    words = ["hope", "sweep", args.file, "--local", "1"]
    words += [word for item in args.set for word in ("--set", item)]
    if args.tune:
        words += ["--tune", args.tune, "--seeds", str(args.seeds or 3)]
    if args.together > 1:
        words += ["--together", str(args.together)]
    return shlex.join(words)


def _list(items, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from hope_jax.sweeps import is_finished

    def state_of(point) -> str:
        try:
            done = is_finished(folder, point)
        except ValueError:
            return "of another configuration"
        return "finished" if done else "begun" if (folder / point.name).exists() else ""

    table = Table(box=None, pad_edge=False)
    for name in ("index", "name", "state"):
        table.add_column(name, overflow="fold")
    for index, item in enumerate(items):
        states = [state_of(point) for point in getattr(item, "points", [item])]
        finished = states.count("finished")
        if len(states) > 1:  # a row, which may go on beyond these
            state = f"{finished} of {len(states)} values" if finished else ""
        else:
            state = states[0]
        table.add_row(str(index), item.name, state)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
