"""Write the slow weights of a run as a checkpoint of its own, without optimizer states.

The folder is a third as large or less, and all that reads models takes it: hope_jax.load,
hope generate, hope stream. Training cannot go on from it.

examples:
  hope export runs/quickstart models/quickstart
  hope export runs/quickstart/checkpoints/800 models/quickstart_800
"""

from __future__ import annotations

import argparse
import shlex

HELP = "write the slow weights of a run alone, to keep or to give away"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `hope export`."""
    parser.add_argument("checkpoint", metavar="RUN", help="a run, or one checkpoint of it")
    parser.add_argument("folder", metavar="FOLDER", help="a new folder")


def run(args: argparse.Namespace) -> None:
    """Export, and say where to and how large."""
    from hope_jax.checkpoint.export import export

    path = export(args.checkpoint, args.folder)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    folder = shlex.quote(args.folder)
    print(f"{path}: {size / 1e6:.1f} MB; try hope generate --workdir {folder}")
