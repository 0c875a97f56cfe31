"""Load the configuration of an experiment from its file."""

from __future__ import annotations

import inspect
import runpy
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hope_jax.config.check import require
from hope_jax.config.overrides import from_json, override, parse_assignments
from hope_jax.config.train import TrainConfig


def load_config(path: str | Path, sets: Sequence[str] = ()) -> TrainConfig:
    """Run `get_config()` of an experiment file and apply overrides.

    Args:
      path: a Python file with `get_config()`; `FILE:VARIANT` calls
        `get_config("VARIANT")`. A name without a suffix means `experiments/NAME.py`. A
        `.json` file, such as the config.json of a run, is read as it stands.
      sets: overrides as on the command line, e.g. `["optim.lr=1e-3"]`.

    Raises:
      ValueError: the file is missing, has no get_config, fails, or is not the JSON of a
        configuration; or an override does not fit.
    """
    name, _, variant = str(path).partition(":")
    file = Path(name)
    if not file.suffix and not file.exists():
        file = Path("experiments") / f"{name}.py"
    require(
        file.is_file(),
        f"there is no file {file} here ({Path.cwd()}); give the path of an experiment file",
    )
    if file.suffix == ".json":
        require(not variant, f"{path}: a JSON file has no variants; leave out {variant!r}")
        config = _from_json(file)
    else:
        config = _call(_get_config(file), variant, file)
    return override(config, parse_assignments(list(sets)))


def _from_json(file: Path) -> TrainConfig:
    try:
        return from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8, not JSON, or not a configuration
        raise ValueError(f"{file}: {error}") from None


def _get_config(file: Path) -> Callable[..., Any]:
    try:
        names = runpy.run_path(str(file), run_name=file.stem)
    except Exception as error:
        raise ValueError(_failure(file, error)) from error
    require(
        callable(names.get("get_config")),
        f"{file} has no function get_config(); define one that returns a TrainConfig",
    )
    return names["get_config"]


def _call(get_config: Callable[..., Any], variant: str, file: Path) -> TrainConfig:
    if variant:
        require(
            bool(inspect.signature(get_config).parameters),
            f"{file} has one configuration; leave out {variant!r}",
        )
    try:
        config = get_config(variant) if variant else get_config()
    except Exception as error:
        raise ValueError(_failure(file, error)) from error
    require(
        isinstance(config, TrainConfig),
        f"get_config() of {file} returned {type(config).__name__}; return a TrainConfig",
    )
    return config


def _failure(file: Path, error: Exception) -> str:
    """Where in the experiment file it went wrong, and what was said there."""
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)
    ]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines = [error.lineno]
    line = f"line {lines[-1]}: " if lines else ""
    return f"{file}: {line}{type(error).__name__}: {error}"
