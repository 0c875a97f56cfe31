"""Streams on disk: a folder of points, each an archive of what differs from the checkpoint."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hope_jax.checkpoint.load import Loaded
from hope_jax.checkpoint.load import load as load_checkpoint
from hope_jax.checkpoint.storage import set_aside
from hope_jax.config import ModelConfig, from_dict, to_dict
from hope_jax.inference.archive import Damaged, damage_named, read_archive, write_archive
from hope_jax.inference.identity import fingerprint
from hope_jax.inference.limits import Limits
from hope_jax.inference.saving import DIFFERS, fill_state
from hope_jax.inference.stream import compact
from hope_jax.models import LanguageModel
from hope_jax.models.in_context import with_slow_weights
from hope_jax.nested.paths import flatten
from hope_jax.streams.changes import apply_changes, changed
from hope_jax.streams.reservoir import Reservoir

if TYPE_CHECKING:
    from hope_jax.streams.stream import Stream

FORMAT = 1
_WHAT = "a saved stream"
_PARTS = ("state", "slow", "reservoir")


def identity(base: Loaded) -> dict[str, str]:
    """Fingerprints of the checkpoint that a stream began with."""
    names = dataclasses.asdict(fingerprint(base.model, base.params))
    return names | {"tokenizer": base.tokenizer.fingerprint}


def save(stream: Stream, folder: str | Path, keep: int) -> Path:
    """Write a point; see `Stream.save`."""
    folder = Path(folder)
    slow = with_slow_weights(stream.model.config, stream.base.params)
    trees = {
        "state": flatten(compact(stream.state)),
        "slow": changed(stream.params, slow),
        "reservoir": stream.reservoir.arrays(),
    }
    arrays = {f"{part}/{name}": x for part in _PARTS for name, x in trees[part].items()}
    manifest = {
        "format": FORMAT,
        "checkpoint": str(stream.base.path.absolute()),
        "fingerprints": identity(stream.base),
        "model": to_dict(stream.model.config),
        "limits": dataclasses.asdict(stream.limits),
        "tokens_read": stream.tokens_read,
        "sleeps": stream.sleeps,
    }
    there = points(folder)
    damaged = _check_newest(there, stream.base, manifest)
    number = there[-1].number + 1 if there else 1
    path = folder / f"{number:06}-{stream.tokens_read}.npz"
    write_archive(path, manifest, arrays)
    for point, error in damaged:
        kept = set_aside(point.path).name
        warnings.warn(f"{error}; it is kept as {kept}", stacklevel=3)
    for old in points(folder)[:-keep] if keep else ():
        old.path.unlink()
    return path


class Point(NamedTuple):
    """A saved point: the number of the save, tokens read by then, and the file."""

    number: int
    tokens: int
    path: Path


def points(folder: str | Path) -> list[Point]:
    """The points of a stream in the order in which they were saved."""
    found = []
    for file in Path(folder).glob("*-*.npz"):
        number, _, tokens = file.stem.partition("-")
        if number.isdecimal() and tokens.isdecimal():
            found.append(Point(int(number), int(tokens), file))
    return sorted(found)


def load(folder: str | Path, point: int | None, checkpoint: Any) -> dict[str, Any]:
    """What `Stream` is made from; see `Stream.load`."""
    there = points(folder)
    if not there:
        raise FileNotFoundError(f"there is no saved stream in {folder}")
    if point is not None and point not in [p.tokens for p in there]:
        known = ", ".join(str(p.tokens) for p in there)
        raise FileNotFoundError(f"{folder} has no point at {point} tokens; it has {known}")
    chosen = [p for p in there if point is None or p.tokens == point][-1]
    try:
        return _opened(chosen.path, checkpoint)
    except Damaged as error:
        raise Damaged(f"{error}{_before(chosen, there)}") from None


def _before(point: Point, there: list[Point]) -> str:
    """How to open the point before a damaged one."""
    earlier = there[: there.index(point)]
    if not earlier:
        return "; no point was saved before it"
    tokens = earlier[-1].tokens
    if tokens == point.tokens:
        return (
            f"; move it out of the folder to open {earlier[-1].path.name}, the point before "
            "it, which has read as many tokens"
        )
    return f"; the point before it is at {tokens} tokens (point={tokens}, or --point {tokens})"


def _opened(path: Path, checkpoint: Any) -> dict[str, Any]:
    """The same of one point."""
    manifest, arrays = _manifest(path)
    with damage_named(path, _WHAT):
        config = from_dict(manifest["model"], ModelConfig)
        limits = Limits(**manifest["limits"])
        read, sleeps = int(manifest["tokens_read"]), int(manifest["sleeps"])
        recorded = manifest["checkpoint"]
    base = _base(path, recorded, checkpoint)
    _check(path, manifest, base, {"fingerprints": identity(base)})
    trees: dict[str, dict[str, np.ndarray]] = {part: {} for part in _PARTS}
    for name, array in arrays.items():
        part, _, rest = name.partition("/")
        trees.setdefault(part, {})[rest] = array
    with damage_named(path, _WHAT):
        params = apply_changes(with_slow_weights(config, base.params), trees["slow"])
        reservoir = Reservoir.from_arrays(trees["reservoir"])
    return {
        "base": base,
        "config": config,
        "params": params,
        "state": fill_state(path, trees["state"], LanguageModel(config), params),
        "limits": limits,
        "reservoir": reservoir,
        "tokens_read": read,
        "sleeps": sleeps,
    }


def _manifest(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Manifest and arrays of a point."""
    manifest, arrays = read_archive(path, _WHAT)
    with damage_named(path, _WHAT):
        written = int(manifest["format"])
    if written > FORMAT:
        raise ValueError(
            f"{path} has stream format {written} and this version of hope_jax reads {FORMAT}; "
            "upgrade hope_jax"
        )
    with damage_named(path, _WHAT):
        if missing := set(DIFFERS) - set(manifest["fingerprints"]):
            raise ValueError(f"it does not name its {', '.join(sorted(missing))}")
    return manifest, arrays


def _check_newest(
    there: list[Point], base: Loaded, here: dict[str, Any]
) -> list[tuple[Point, Damaged]]:
    """Check the newest point that can be read; returns those after it, which cannot."""
    damaged = []
    for point in reversed(there):
        try:
            saved, _ = _manifest(point.path)
        except Damaged as error:
            damaged.append((point, error))
            continue
        _check(point.path, saved, base, here)
        break
    return damaged


def _check(path: Path, saved: dict[str, Any], base: Loaded, here: dict[str, Any]) -> None:
    """Refuse a stream of another checkpoint than `base`."""
    for what, mark in here["fingerprints"].items():
        other = saved["fingerprints"][what]
        if other != mark:
            raise ValueError(
                f"{path} began with another checkpoint than {base.path}: {DIFFERS[what]}: "
                f"{other} in the stream, {mark} in the checkpoint"
            )


def _base(path: Path, recorded: str, checkpoint: Any) -> Loaded:
    if isinstance(checkpoint, Loaded):
        return checkpoint
    if checkpoint is None and not Path(recorded).exists():
        raise FileNotFoundError(
            f"{path} began with the checkpoint {recorded}, which is not there any more; say "
            "where it is now (checkpoint=..., or --workdir)"
        )
    return load_checkpoint(recorded if checkpoint is None else checkpoint)
