"""Documents, and the rules that cut a sequence of them into training and validation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator


@dataclasses.dataclass(frozen=True)
class Document:
    """A piece of text that is read from its own beginning, as raw bytes.

    `offset` is where it starts in the file that `name` gives, so that an error can point
    at the place.
    """

    name: str
    data: bytes
    offset: int = 0

    def slice(self, start: int, stop: int | None = None) -> Document:
        """The part `[start, stop)` of this document."""
        return Document(self.name, self.data[start:stop], self.offset + start)


def split_documents(
    documents: Iterable[Document], total: int, validation: float
) -> Iterator[tuple[str, Document]]:
    """Label documents "train" or "validation"; the last fraction `validation` of bytes is
    held out.

    The cut falls between two documents where that changes the held-out size by less than a
    half; a document larger than that is divided, after a line end if there is one near.

    Args:
      documents: in order; they are read once.
      total: number of bytes of all of them.
      validation: fraction of bytes, 0 <= validation < 1.
    """
    cut = total - round(total * validation)
    slack = (total - cut) // 2
    position = 0
    for document in documents:
        start, stop = position, position + len(document.data)
        position = stop
        if stop <= cut:
            yield "train", document
        elif start >= cut:
            yield "validation", document
        elif stop - cut <= slack and stop < total:
            cut = stop
            yield "train", document
        elif cut - start <= slack and start > 0:
            cut = start
            yield "validation", document
        else:
            inside = text_boundary(document.data, cut - start)
            yield "train", document.slice(0, inside)
            yield "validation", document.slice(inside)
            cut = start + inside


def pieces(document: Document, limit: int = 1 << 20) -> Iterator[Document]:
    """Cut a document into parts of at most `limit` bytes, so that memory stays bounded.

    >>> [part.data for part in pieces(Document("a.txt", b"one\\ntwo\\nthree"), limit=9)]
    [b'one\\ntwo\\n', b'three']
    """
    start = 0
    while len(document.data) - start > limit:
        stop = start + text_boundary(document.data[start : start + limit + 1], limit)
        yield document.slice(start, stop)
        start = stop
    yield document.slice(start)


def text_boundary(data: bytes, position: int) -> int:
    """The place to cut `data` at or shortly before `position`: after a line end, else at
    the start of a UTF-8 character, else at `position` itself."""
    line_end = data.rfind(b"\n", max(0, position - max(position // 10, 256)), position) + 1
    if line_end:
        return line_end
    for back in itertools.takewhile(lambda back: back < position, range(4)):
        if position == len(data) or data[position - back] & 0xC0 != 0x80:
            return position - back
    return position
