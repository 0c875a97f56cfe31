"""The list of a checkpoint's files, to notice a truncated or damaged one before reading it.

Orbax notices most damage too, but by pages of messages from several threads. Sizes are
kept of all files and a CRC of those up to 16 MiB; what lies in larger ones is guarded by
the checksums of the arrays.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Container
from pathlib import Path
from typing import Any

from hope_jax.checkpoint.whole_file import write_whole

NAME = "files.json"
_CRC_LIMIT = 16 * 2**20


def write(folder: Path) -> None:
    """Write the list of the files of a finished checkpoint, in place of one that is there."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    files = {p.relative_to(folder).as_posix(): _facts(p) for p in paths}
    write_whole(folder / NAME, json.dumps(files))


def damage(folder: Path, items: Container[str]) -> str | None:
    """What is wrong with the files of some items of a checkpoint, or None.

    A checkpoint without a list is not wrong: the run was killed after the checkpoint was
    finished and before the list was.

    Raises:
      OSError: a file is there and cannot be read.
    """
    try:
        files = json.loads((folder / NAME).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return f"{NAME} is damaged"
    if not _is_list(files):
        return f"{NAME} is damaged"
    for name, (size, crc) in files.items():
        path = folder / name
        if "/" in name and name.split("/")[0] not in items:
            continue
        if not path.is_file():
            return f"{name} is missing"
        found = _facts(path)
        if found[0] != size:
            return f"{name} has {found[0]} bytes and was written with {size}"
        if found[1] != crc:
            return f"{name} is damaged"
    return None


def _is_list(files: Any) -> bool:
    return isinstance(files, dict) and all(
        isinstance(facts, list) and len(facts) == 2 for facts in files.values()
    )


def _facts(path: Path) -> list[int | None]:
    size = path.stat().st_size
    return [size, zlib.crc32(path.read_bytes()) if size <= _CRC_LIMIT else None]
