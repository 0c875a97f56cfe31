"""Documents from the lines of a file: between separator lines, or as JSON objects.

A large file is read by several workers, each from another byte on. A document belongs to the
range of bytes that it starts in, so every cut of a file gives the same documents.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from hope_jax.data.documents import Document

READ_ERRORS = (OSError, EOFError, zlib.error)  # of files, also of packed ones
Lines = Iterable[tuple[int, bytes]]  # byte offset, and the line with its end


def plain(file: BinaryIO, name: str) -> BinaryIO:
    """`file`, unpacked if `name` ends in .gz."""
    return gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file


def unreadable(name: str, error: Exception) -> ValueError:
    """Input that cannot be read is not the fault of the folder that is being written, so it
    is no `OSError`."""
    return ValueError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")


def read_lines(file: BinaryIO, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Lines that begin at byte `start` or later.

    >>> import io
    >>> list(read_lines(io.BytesIO(b"one\\ntwo\\nthree"), start=2))
    [(4, b'two\\n'), (8, b'three')]
    """
    offset = start
    if start:
        file.seek(start - 1)
        offset += len(file.readline()) - 1  # the rest of a line that began before
    while line := file.readline():
        yield offset, line
        offset += len(line)


def json_documents(
    lines: Lines, name: str, field: str, stop: int | None = None
) -> Iterator[Document]:
    """The text in `field` of each line that begins before `stop`; blank lines are skipped.

    Raises:
      ValueError: a line is no JSON object with such a field, or its text has no UTF-8 form;
        the message names the file and the byte offset.
    """
    for offset, line in lines:
        if stop is not None and offset >= stop:
            return
        if not line.strip():
            continue
        place = f"{name}: line at byte {offset}"
        try:
            value = json.loads(line)
        except ValueError as error:  # also bytes that are not UTF-8
            raise ValueError(f"{place} is not JSON: {error}") from None
        text = value.get(field) if isinstance(value, dict) else None
        if not isinstance(text, str):
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise ValueError(f"{place} has no text in field {field!r}; it has {found}")
        try:
            yield Document(name, text.encode("utf-8"), offset)
        except UnicodeEncodeError as error:
            raise ValueError(f"{place}: {error}") from None


def separated_documents(
    lines: Lines, name: str, separator: bytes, start: int = 0, stop: int | None = None
) -> Iterator[Document]:
    """What is between lines that are exactly `separator` (with LF or CRLF).

    Args:
      lines: from `separator_start(start, separator)` on.
      name: of the file.
      separator: without line end.
      start: a document that begins before is left to another range.
      stop: likewise one that begins at or after it; None: also one at the end of the file.
    """
    ends = (separator, separator + b"\n", separator + b"\r\n")
    begun = 0 if start == 0 else None  # where the open document began, if it is ours
    held: list[bytes] = []
    for offset, line in lines:
        if line in ends:
            if begun is not None:
                yield Document(name, b"".join(held), begun)
            following = offset + len(line)
            if stop is not None and following >= stop:
                return
            begun, held = (following if following >= start else None), []
        elif begun is not None:
            held.append(line)
        elif stop is not None and offset >= stop:
            return
    if begun is not None:
        yield Document(name, b"".join(held), begun)


def separator_start(start: int, separator: bytes) -> int:
    """Where to begin to read, to see a separator line that ends at `start`."""
    return max(0, start - len(separator) - len(b"\r\n"))
