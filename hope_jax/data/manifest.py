"""`manifest.json`: what a prepared folder holds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from hope_jax.data.records import RECORD, records_of

FILE = "manifest.json"
PLAN_FILE = "plan.json"  # what `hope prepare --beam` is doing or has done in a folder
FORMAT = 2


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """Counts of one shard, and the file that holds it.

    `sha256` is taken over the records in order, `file_sha256` over the file, whose name is
    relative to the prepared folder.
    """

    tokens: int
    bytes: int
    documents: int
    empty_documents: int
    sha256: str
    file: str
    file_bytes: int
    file_sha256: str


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """Counts of one split.

    `sha256` is taken over the records in order; where there are shards, over their `sha256`
    in order.
    """

    tokens: int
    bytes: int
    documents: int
    empty_documents: int
    sha256: str
    shards: tuple[ShardInfo, ...] = ()

    @property
    def streams(self) -> list[int]:
        """Tokens of each stream that begins with a new record."""
        return [shard.tokens for shard in self.shards] or [self.tokens]

    @property
    def records(self) -> int:
        """Records of all streams."""
        return sum(map(records_of, self.streams))

    @classmethod
    def merge(cls, shards: Sequence[ShardInfo]) -> SplitInfo:
        """The split that `shards` are, in order."""
        counts = ("tokens", "bytes", "documents", "empty_documents")
        totals = {name: sum(getattr(shard, name) for shard in shards) for name in counts}
        digest = hashlib.sha256("".join(shard.sha256 for shard in shards).encode())
        return cls(**totals, sha256=digest.hexdigest(), shards=tuple(shards))


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
        (folder / FILE).write_text(self.text())

    def text(self) -> str:
        """What is in the file."""
        data = dataclasses.asdict(self)
        for split in data["splits"].values():
            if not split["shards"]:
                del split["shards"]
        return json.dumps(data, indent=2) + "\n"

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
            if (folder / PLAN_FILE).exists():
                raise ValueError(
                    f"{folder} is not finished: hope prepare --beam was begun there; run the "
                    "same command again, it goes on where it stopped"
                ) from None
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
            splits = {}
            for name, info in data.pop("splits").items():
                shards = tuple(ShardInfo(**shard) for shard in info.pop("shards", ()))
                splits[name] = SplitInfo(**info, shards=shards)
            return cls(splits=splits, **data)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}); prepare it again") from None
