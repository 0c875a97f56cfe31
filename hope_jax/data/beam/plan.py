"""What is to be done in a folder: which bytes of which files make which shard.

It depends on the names and sizes of the input and on the options alone, not on workers, so
the order of documents, by file and then by offset, is the same in every run. It is kept as
`plan.json`, and a run that goes on there has to have the same one.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence

from hope_jax.data.beam import storage
from hope_jax.data.builder import shard_file
from hope_jax.data.manifest import PLAN_FILE
from hope_jax.data.prepare import SPLITS
from hope_jax.data.sources import check_fraction, check_layout, find_files

SHARD_BYTES = 256_000_000  # of input; C4 has a file per shard then
FORMAT = 1
FINISHED = "shards/*.json"  # manifests of finished shards
_GLOB = set("*?[")
_WIDEST = 10  # a shard of a small held-out part reads at most so many times more


@dataclasses.dataclass(frozen=True)
class Piece:
    """Documents that begin in bytes [start, stop) of a file; None: up to its end."""

    file: str
    start: int = 0
    stop: int | None = None


@dataclasses.dataclass(frozen=True)
class Shard:
    """What one worker does at a time: the documents of one split in some pieces."""

    split: str
    number: int
    shards: int
    pieces: tuple[Piece, ...]
    size: int

    @property
    def file(self) -> str:
        """Where its records go, relative to the folder."""
        return shard_file(self.split, self.number, self.shards)

    @property
    def manifest(self) -> str:
        """Where it is said what is in it."""
        return f"shards/{self.split}-{self.number:05}-of-{self.shards:05}.json"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that decides which records come out.

    Attributes:
      paths: the input as it was given, by split.
      files: the files found there in order, with size and time of change, by split.
      separator: see `TextSource`.
      jsonl: see `TextSource`.
      validation: fraction of documents that is held out, by a hash of their text; unused
        where files of that split are named.
      shard_bytes: of input that make a shard.
      tokenizer: "byte", "byte+end", "sentencepiece SIZE", or "file FINGERPRINT".
    """

    paths: dict[str, list[str]]
    files: dict[str, list[storage.Found]]
    separator: str | None
    jsonl: str | None
    validation: float
    shard_bytes: int
    tokenizer: str
    format: int = FORMAT

    @classmethod
    def make(
        cls,
        paths: Sequence[str],
        tokenizer: str,
        *,
        validation_paths: Sequence[str] = (),
        pattern: str = "*",
        separator: str | None = None,
        jsonl: str | None = None,
        validation: float = 0.1,
        shard_bytes: int = SHARD_BYTES,
    ) -> Plan:
        """Find the input; the arguments are those of `TextSource`, and globs and URLs.

        Raises:
          ValueError: no such input, or options that make no sense.
        """
        check_fraction(validation)
        check_layout(separator, jsonl)
        if shard_bytes < 1:
            raise ValueError(f"shards of {shard_bytes} bytes; use at least 1")
        given = {"train": list(paths), "validation": list(validation_paths)}
        return cls(
            paths=given,
            files={split: _find(some, pattern) for split, some in given.items() if some},
            separator=separator,
            jsonl=jsonl,
            validation=0.0 if validation_paths else validation,
            shard_bytes=shard_bytes,
            tokenizer=tokenizer,
        )

    def shards(self) -> list[Shard]:
        """All work, in the order of the splits and of their documents."""
        made = []
        for split in SPLITS:
            files, limit = self.files.get(split, []), self.shard_bytes
            if split == "validation" and not files and self.validation:
                files = self.files["train"]
                limit = int(limit * min(1 / self.validation, _WIDEST))
            groups = list(self._groups(files, limit))
            made += [
                Shard(split, number, len(groups), tuple(pieces), size)
                for number, (pieces, size) in enumerate(groups)
            ]
        return made

    def describe(self) -> dict:
        """What the text is, for the manifest."""
        return {
            "kind": "text",
            "paths": self.paths,
            "files": sum(map(len, self.files.values())),
            "separator": self.separator,
            "jsonl": self.jsonl,
            "held_out": "named files" if "validation" in self.files else self.validation,
        }

    def write(self, folder: storage.Folder) -> None:
        """Write `plan.json`."""
        text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        folder.write(PLAN_FILE, text.encode())

    @classmethod
    def read(cls, folder: storage.Folder) -> Plan | None:
        """Read `plan.json`; None if there is none.

        Raises:
          ValueError: it is damaged or of another version.
        """
        data = folder.read(PLAN_FILE)
        if data is None:
            return None
        try:
            fields = json.loads(data)
            fields["files"] = {
                split: [storage.Found(*entry) for entry in entries]
                for split, entries in fields["files"].items()
            }
            plan = cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{folder.name(PLAN_FILE)} is damaged ({error}); begin anew with --force"
            ) from None
        if plan.format != FORMAT:
            raise ValueError(
                f"{folder.name(PLAN_FILE)} has format {plan.format}, this version goes on with "
                f"{FORMAT}; begin anew with --force"
            )
        return plan

    def differences(self, other: Plan) -> list[str]:
        """How `other` differs, in words."""
        words = []
        for split in SPLITS:
            words += _files_differ(self.files.get(split, []), other.files.get(split, []))
        for field, option in {
            "separator": "--separator",
            "jsonl": "--jsonl",
            "validation": "held-out fraction",
            "shard_bytes": "bytes of a shard",
            "tokenizer": "--tokenizer",
        }.items():
            old, new = getattr(self, field), getattr(other, field)
            if old != new:
                words.append(f"{option}: {old!r} -> {new!r}")
        return words

    def _groups(self, files, limit: int) -> Iterator[tuple[list[Piece], int]]:
        pieces: list[Piece] = []
        filled = 0
        for file in files:
            for piece, size in self._pieces(file, limit):
                pieces.append(piece)
                filled += size
                if filled >= limit:
                    yield pieces, filled
                    pieces, filled = [], 0
        if pieces:
            yield pieces, filled

    def _pieces(self, file: storage.Found, limit: int) -> Iterator[tuple[Piece, int]]:
        """A file in equal ranges of at most `limit` bytes, if it can be entered midway."""
        by_lines = self.separator is not None or self.jsonl is not None
        packed = self.jsonl is not None and file.name.endswith(".gz")
        count = max(1, -(-file.size // limit)) if by_lines and not packed else 1
        bounds = [index * file.size // count for index in range(count + 1)]
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
            last = stop == file.size
            yield Piece(file.name, start, None if last else stop), stop - start


def _find(paths: Sequence[str], pattern: str) -> list[storage.Found]:
    """Files of `paths` in order: as `TextSource` finds them, and by globs and URLs."""
    found: list[storage.Found] = []
    for path in paths:
        if _GLOB & set(path):
            some = storage.find(path)
        elif storage.is_remote(path):
            some = storage.find(path) or storage.find(f"{path.rstrip('/')}/**/{pattern}")
        else:
            files = find_files([pathlib.Path(path).expanduser().absolute()], pattern)
            some = [
                storage.Found(str(file), file.stat().st_size, int(file.stat().st_mtime))
                for file in files
            ]
        if not some:
            raise ValueError(f"no file matches {path}")
        found += some
    return found


def _files_differ(old: Sequence[storage.Found], new: Sequence[storage.Found]) -> list[str]:
    if [file.name for file in old] != [file.name for file in new]:
        gone = sorted({file.name for file in old} - {file.name for file in new})
        come = sorted({file.name for file in new} - {file.name for file in old})
        what = [
            f"{names[0]} {word}" for names, word in ((gone, "gone"), (come, "new")) if names
        ]
        return [f"input: {len(old)} files -> {len(new)}, {', '.join(what) or 'another order'}"]
    changed = [a.name for a, b in zip(old, new, strict=True) if a != b]
    return [f"input: {changed[0]} has changed ({len(changed)} files)"] if changed else []
