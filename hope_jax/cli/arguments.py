"""Arguments that several subcommands have."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--set`, for `hope_jax.config.load.load_config`."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="an experiment file with get_config() (FILE:VARIANT picks a variant), or the "
        "config.json of a run",
    )
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """`--set` alone, for `hope_jax.config.parse_assignments`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a field, e.g. --set model.depth=8; may be given several times",
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """`--workdir` of a command that reads what training wrote."""
    parser.add_argument(
        "--workdir",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of a run, or of one checkpoint",
    )


def not_utf8(where: Path | str, error: UnicodeDecodeError) -> ValueError:
    """The same mistake with the place where the text came from.

    >>> not_utf8("a.txt", UnicodeDecodeError("utf-8", b"a\\xff", 1, 2, "invalid start byte"))
    ValueError('a.txt is not UTF-8 text: invalid start byte at byte 1')
    """
    return ValueError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}")


def check_writable(option: str, path: Path) -> None:
    """Say before the work, not after it, that its result cannot be kept.

    Raises:
      ValueError: the file that `option` names cannot be written.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"the folder of {option} {path} does not exist")
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; name a file")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"the folder of {option} {path} cannot be written to")
