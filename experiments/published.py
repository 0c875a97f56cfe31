"""Datasets that their authors publish, which are not part of this project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def require(dataset: str, folder: Path, names: Sequence[str], address: str) -> None:
    """Check that the files of a dataset are there.

    Raises:
      FileNotFoundError: one is missing; says which, and where it is published.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{dataset} needs {' and '.join(missing)} in {folder}; the files are published at "
            f"{address}"
        )
