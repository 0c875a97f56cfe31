"""Where files of this machine are, and paths that have to be on a mounted file system."""

from __future__ import annotations

import os
import pathlib


def cache_folder() -> pathlib.Path:
    """What is kept between commands: `$HOPE_CACHE`, or `~/.cache/hope_jax`."""
    chosen = os.environ.get("HOPE_CACHE")
    return pathlib.Path(chosen or "~/.cache/hope_jax").expanduser()


def local_path(path: str | pathlib.Path, what: str) -> pathlib.Path:
    """`path`, with `~` expanded.

    Args:
      path: of a file or folder.
      what: the option or field that names it, for the message.

    Raises:
      ValueError: it is a URL such as gs://bucket/folder.

    >>> local_path("runs/a", "--workdir").name
    'a'
    """
    text = str(path)
    scheme, mark, rest = text.partition(":/")
    if mark and scheme.isalnum():  # pathlib makes one slash of two
        bucket, _, folder = rest.strip("/").partition("/")
        raise ValueError(
            f"{what} is {text}, which is not on a mounted file system"
            + (
                f"; mount the bucket (mkdir -p ~/{bucket} && gcsfuse --implicit-dirs {bucket} "
                f"~/{bucket}) and use ~/{bucket}/{folder}; see docs/data_at_scale.md"
                if scheme == "gs"
                else "; mount it, or copy it to a disk"
            )
        )
    return pathlib.Path(path).expanduser()
