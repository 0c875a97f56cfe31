"""Lines of JSON in the files that users bring, with errors that name file, line and field."""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Record:
    """A JSON object of one line.

    Attributes:
      values: its fields.
      place: file and line, for messages.
    """

    values: dict[str, Any]
    place: str

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def wrong(self, name: str, wanted: str) -> ValueError:
        """The error of a field that is not as it should be."""
        found = self.values.get(name, _MISSING)
        if found is _MISSING:
            has = ", ".join(map(repr, sorted(self.values))) or "none"
            return ValueError(
                f"{self.place}: no field {name!r}, {wanted}; its fields are {has}"
            )
        return ValueError(f"{self.place}: field {name!r} is {_short(found)}; {wanted}")

    def text(self, name: str) -> str:
        """A field that is a text."""
        value = self.values.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "it has to be a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of at least two texts."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self.wrong(name, "it has to be a list of texts")
        if len(value) < 2:
            raise self.wrong(name, "it has to be a list of two texts or more")
        return tuple(value)

    def one_of(self, name: str, *allowed: Any) -> int:
        """Place of the field's value among the allowed ones; 1 and "1" are the same."""
        value = self.values.get(name)
        if isinstance(value, (str, int)):
            for place, choice in enumerate(allowed):
                if str(value).lower() == str(choice).lower():
                    return place
        raise self.wrong(name, f"it has to be one of {', '.join(map(repr, allowed))}")

    def inner(self, name: str) -> Record:
        """A field that is an object of its own."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self.wrong(name, "it has to be an object")
        return Record(value, f"{self.place}, in {name!r}")


def read_records(path: Path) -> Iterator[Record]:
    """Objects of a file of JSON lines, packed where the name ends in .gz; blank lines pass.

    Raises:
      ValueError: a line is not a JSON object, or the file cannot be unpacked.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _record(line, f"{path}, line {number}")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{path} cannot be unpacked after line {number}: {error}"
            ) from None


def _record(line: bytes, place: str) -> Record:
    try:
        values = json.loads(line)
    except ValueError as error:  # also bytes that are not UTF-8
        raise ValueError(f"{place} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{place} is {_short(values)}; it has to be a JSON object")
    return Record(values, place)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
