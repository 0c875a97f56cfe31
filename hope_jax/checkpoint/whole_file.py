"""Text files that are whole or as they were, whenever the process ends."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Args:
      path: the file, in a folder that is there; an older one is replaced.
      text: all of it.

    Raises:
      OSError: it could not be written; an older file is as it was.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "found.json"
    >>> write_whole(file, "{}")
    >>> file.read_text(), [other.name for other in file.parent.iterdir()]
    ('{}', ['found.json'])
    """
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
