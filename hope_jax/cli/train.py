"""Train a model, or go on with a run that was stopped.

The folder of a run holds metrics.jsonl, checkpoints/, plots and summary.json. Running the
same command again goes on from the newest checkpoint. SIGTERM and Ctrl-C save first; the
exit status is then 143 or 130.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "train a model, or go on with a run that was stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of `hope train`."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="an experiment file with get_config() (FILE:VARIANT picks a variant), or the "
        "config.json of a run",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a field, e.g. --set model.depth=8; may be given several times",
    )
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


def run(args: argparse.Namespace) -> int:
    """Train; the exit status tells how it ended."""
    from hope_jax.config.load import load_config

    config = load_config(args.config, args.set)
    workdir = args.workdir or Path("runs") / config.name

    from hope_jax.training import train  # after the configuration: its errors come at once

    outcome = train(config, workdir, change_optimizer=args.change_optimizer)
    if outcome.stopped is not None:
        print(
            f"stopped by {outcome.stopped.name} at step {outcome.step} and saved; "
            "run the same command to go on"
        )
        return 128 + outcome.stopped
    print(f"everything is in {workdir}")
    return 0
