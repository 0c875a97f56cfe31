"""`manifest.json`: what a prepared folder holds."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from hope_jax.data.records import RECORD

FILE = "manifest.json"
FORMAT = 2


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """Counts of one split; `sha256` is taken over the records in order."""

    tokens: int
    bytes: int
    documents: int
    empty_documents: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Contents of a prepared folder: `record` tokens a record, `part` records a dataset."""

    source: dict[str, Any]
    tokenizer: str
    fingerprint: str
    vocab_size: int
    dtype: str
    record: int
    part: int
    splits: dict[str, SplitInfo]
    format: int = FORMAT

    def write(self, folder: pathlib.Path) -> None:
        """Write `manifest.json` into `folder`."""
        (folder / FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: pathlib.Path) -> Manifest:
        """Read `manifest.json`.

        Raises:
          ValueError: there is none, it is damaged, or its format is another one.
        """
        path = folder / FILE
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            raise ValueError(
                f"{folder} is not prepared data (no {FILE}); make it with: "
                f"hope prepare {folder} --input YOUR_TEXT"
            ) from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}; prepare it again") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, dict) else data
            raise ValueError(
                f"{path} has format {found!r}, this version reads {FORMAT}; prepare it again"
            )
        if data.get("record") != RECORD:
            raise ValueError(
                f"{path} has records of {data.get('record')} tokens, this version reads "
                f"{RECORD}; prepare it again"
            )
        try:
            splits = {name: SplitInfo(**info) for name, info in data.pop("splits").items()}
            return cls(splits=splits, **data)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}); prepare it again") from None
