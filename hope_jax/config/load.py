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

    A file may define `finish(config)` as well, which is given the configuration with all
    overrides in it and returns the one to train. What follows from other fields belongs there,
    such as a width that is solved for: in `get_config` it would not follow an override.

    Args:
      path: a Python file with `get_config()`; `FILE:VARIANT` calls
        `get_config("VARIANT")`. A name without a suffix means `experiments/NAME.py`. A
        `.json` file, such as the config.json of a run, is read as it stands.
      sets: overrides as on the command line, e.g. `["optim.lr=1e-3"]`.

    Raises:
      ValueError: the file is missing, has no get_config, fails, or is not the JSON of a
        configuration; or an override does not fit.
    """
    name, variant = split_variant(path)
    file = find_file(name)
    if file.suffix == ".json":
        require(not variant, f"{path}: a JSON file has no variants; leave out {variant!r}")
        config = _from_json(file)
        return override(config, parse_assignments(list(sets)))
    file, names = load_names(name)
    config = override(config_of(file, names, variant), parse_assignments(list(sets)))
    return finish_of(file, names)(config)


def split_variant(path: str | Path) -> tuple[str, str]:
    """`FILE:VARIANT` in two; the whole is FILE where there is such a file.

    >>> split_variant("sizes.py:large"), split_variant("sizes.py")
    (('sizes.py', 'large'), ('sizes.py', ''))
    """
    if Path(path).is_file():
        return str(path), ""
    name, _, variant = str(path).partition(":")
    return name, variant


def find_file(name: str) -> Path:
    """The experiment file of this name; one without a suffix is under experiments/."""
    file = Path(name)
    if not file.suffix and not file.exists():
        file = Path("experiments") / f"{name}.py"
    require(
        file.is_file(),
        f"there is no file {file} here ({Path.cwd()}); give the path of an experiment file",
    )
    return file


def load_names(name: str) -> tuple[Path, dict[str, Any]]:
    """An experiment file and what it defines.

    Raises:
      ValueError: there is no such file, or it fails.
    """
    file = find_file(name)
    try:
        return file, runpy.run_path(str(file), run_name=file.stem)
    except Exception as error:
        raise ValueError(_failure(file, error)) from error


def call(function: Callable[..., Any], variant: str, file: Path) -> Any:
    """What a function of an experiment file gives, with its failures told by line."""
    try:
        return function(variant) if variant else function()
    except Exception as error:
        raise ValueError(_failure(file, error)) from error


def _from_json(file: Path) -> TrainConfig:
    try:
        return from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8, not JSON, or not a configuration
        raise ValueError(f"{file}: {error}") from None


def config_of(file: Path, names: dict[str, Any], variant: str) -> TrainConfig:
    """The configuration that an experiment file, from `load_names`, gives.

    Raises:
      ValueError: it has no `get_config`, or that fails or gives something else.
    """
    get_config = names.get("get_config")
    require(
        callable(get_config),
        f"{file} has no function get_config(); define one that returns a TrainConfig",
    )
    if variant:
        require(
            bool(inspect.signature(get_config).parameters),
            f"{file} has one configuration; leave out {variant!r}",
        )
    return _checked(call(get_config, variant, file), f"get_config() of {file}")


def finish_of(file: Path, names: dict[str, Any]) -> Callable[[TrainConfig], TrainConfig]:
    """`finish` of an experiment file, from `load_names`; the identity where it has none."""
    finish = names.get("finish", as_it_is)
    return lambda config: _checked(
        call(lambda: finish(config), "", file), f"finish() of {file}"
    )


def as_it_is(config: TrainConfig) -> TrainConfig:
    """The `finish` of a file that has none."""
    return config


def _checked(config: Any, what: str) -> TrainConfig:
    require(
        isinstance(config, TrainConfig),
        f"{what} returned {type(config).__name__}; return a TrainConfig",
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
