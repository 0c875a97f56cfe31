"""Arguments that several subcommands have."""

from __future__ import annotations

import argparse


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--set`, for `hope_jax.config.load.load_config`."""
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
