"""Loading a trained model: three lines in a notebook, on any number of devices."""

from __future__ import annotations

import base64
import dataclasses
import tempfile
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.checkpoint.snapshot import nest
from hope_jax.checkpoint.storage import (
    CorruptCheckpoint,
    finished_steps,
    read_arrays,
    read_json,
)
from hope_jax.config import TrainConfig, from_dict
from hope_jax.config.paths import local_path
from hope_jax.data import Tokenizer, load_tokenizer
from hope_jax.models import LanguageModel


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A trained model.

    Attributes:
      config: the configuration of its training run.
      model: the Linen module; `model.apply({"params": params}, tokens_BT)`.
      params: slow weights, on the default device.
      tokenizer: between text and token ids.
      step: training steps done.
      versions: of the packages that wrote the checkpoint.
      path: the checkpoint that was read.
    """

    config: TrainConfig
    model: LanguageModel
    params: Any
    tokenizer: Tokenizer
    step: int
    versions: dict[str, str]
    path: Path


def load(path: str | Path) -> Loaded:
    """Load the slow weights of a run, whatever devices it was trained on.

    Args:
      path: the folder of a run, which gives the newest checkpoint that can be read, or the
        folder of one checkpoint.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: what is there is no checkpoint, or cannot be read, or a newer version of
        hope_jax wrote it.
    """
    path = local_path(path, "the run or checkpoint")
    if not path.exists():
        raise FileNotFoundError(f"there is no run or checkpoint at {path}")
    broken: list[CorruptCheckpoint] = []
    for candidate in _candidates(path):
        try:
            loaded = _read(candidate)
        except CorruptCheckpoint as error:
            broken.append(error)
            continue
        for error in broken:
            warnings.warn(f"{error}; using the checkpoint before it", stacklevel=2)
        return loaded
    if broken:
        raise ValueError("\n".join(map(str, broken)))
    raise ValueError(
        f"{path} holds no checkpoint; give the folder of a run (with checkpoints/ in it) or of "
        "one checkpoint (such as RUN/checkpoints/1000)"
    )


def checkpoint_at(path: Path) -> Path | None:
    """The checkpoint that `path` is, or that it has at its root as `hope export` leaves it;
    None where there is none, or at most those of a run.

    >>> checkpoint_at(Path("runs/none")) is None
    True
    """
    return next((found for found in _at(path) if _is_one(found)), None)


def _candidates(path: Path) -> list[Path]:
    inside = path / "checkpoints"
    return _at(path if _is_one(path) or not inside.is_dir() else inside)


def _at(folder: Path) -> list[Path]:
    """The checkpoint that a folder is, or those in it, newest first."""
    if _is_one(folder):
        return [folder]
    return [folder / str(step) for step in reversed(finished_steps(folder))]


def _is_one(folder: Path) -> bool:
    return (folder / "contents").is_dir()


def _read(path: Path) -> Loaded:
    items = read_json(path, ("contents", "config"))
    run = items["config"]
    try:
        config = from_dict(run["config"])
    except ValueError as error:
        written = run["versions"]["hope_jax"]
        raise ValueError(
            f"{path} was written by hope_jax {written}, and its configuration does not fit "
            f"this version: {error}"
        ) from None
    table = items["contents"]["items"]["slow"]
    wanted = {
        name: np.empty(row["shape"], jnp.dtype(row["dtype"])) for name, row in table.items()
    }
    arrays = read_arrays(path, {"slow": wanted}, items["contents"])["slow"]
    return Loaded(
        config=config,
        model=LanguageModel(config.model),
        params=jax.device_put(nest(arrays)),
        tokenizer=_tokenizer(run["tokenizer"]),
        step=_step(path, items["contents"]),
        versions=run["versions"],
        path=path,
    )


def _step(path: Path, contents: dict[str, Any]) -> int:
    """Training steps of a checkpoint, whatever its folder is called by now."""
    step = contents.get("step", path.absolute().name)
    if not str(step).isdecimal():  # written before steps were noted, and renamed
        raise ValueError(f"{path}: give the folder its old name, the number of the step")
    return int(step)


def _tokenizer(files: dict[str, str]) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(base64.b64decode(content))
        return load_tokenizer(folder)
