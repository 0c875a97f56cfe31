"""Train a model, or go on with a run that was stopped.

The folder of a run holds metrics.jsonl, checkpoints/, plots and summary.json. Running the
same command again goes on from the newest checkpoint. SIGTERM and Ctrl-C save first; the
exit status is then 143 or 130. It is 75 where another process trains in the folder.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hope_jax.cli.arguments import add_config
from hope_jax.cli.main import tell
from hope_jax.cli.supervise import is_watched, watch

TRY_AGAIN = os.EX_TEMPFAIL  # 75: nobody's mistake; machines may still be starting
HELP = "train a model, or go on with a run that was stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of `hope train`."""
    add_config(parser)
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: runs/NAME, NAME from the configuration)",
    )
    parser.add_argument(
        "--change-optimizer",
        action="store_true",
        help="go on with the run that is there although fields of optim differ: levels whose "
        "rule is the same keep the state of their optimizer, the others start it anew",
    )

    several = parser.add_argument_group(
        "several processes",
        "One command per process, with the same configuration and a work folder that all of "
        "them see.",
    )
    several.add_argument(
        "--distributed",
        action="store_true",
        help="JAX finds the others, as it can on TPU pods, GKE and Slurm",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")


def run(args: argparse.Namespace) -> int:
    """Train; the exit status tells how it ended."""
    from hope_jax.config.load import load_config

    config = load_config(args.config, args.set)
    workdir = args.workdir or Path("runs") / config.name

    # after the configuration: its errors come at once
    from hope_jax.parallel.processes import Peers, is_main, join, leave

    peers = Peers(args.coordinator, args.processes, args.process)
    several = args.distributed or peers.coordinator is not None
    if several and not is_watched():
        return watch(workdir)

    from hope_jax.training import train

    if several:
        try:
            join(peers)
        except TimeoutError as error:
            tell("train", error)
            return TRY_AGAIN
    try:
        outcome = train(config, workdir, change_optimizer=args.change_optimizer)
    except (ValueError, OSError) as error:
        if not several or os.environ.get("HOPE_TRACEBACK") == "1":
            raise
        leave(tell("train", error))
    if outcome.stopped is not None:
        if is_main():
            print(
                f"stopped by {outcome.stopped.name} at step {outcome.step} and saved; "
                "run the same command to go on"
            )
        return 128 + outcome.stopped
    if is_main():
        print(f"everything is in {workdir}")
    return 0
