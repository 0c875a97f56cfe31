"""Strict dotted overrides and JSON for frozen dataclass configurations.

>>> from hope_jax.config import TrainConfig, override
>>> override(TrainConfig(), {"model.depth": 8, "model.mixer": "attention"}).model.depth
8
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from hope_jax.config.mixers import MIXER_CONFIGS
from hope_jax.config.train import TrainConfig


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """Return `config` with dotted fields replaced.

    Args:
      config: a frozen dataclass.
      changes: dotted field name -> value. Strings (from a command line) are read as
        Python literals where the field is not a string. A mixer may be set by its type
        name, which gives that mixer's defaults.

    Raises:
      ValueError: an unknown field (with the nearest name) or a value of the wrong type.
    """
    for path, value in changes.items():
        config = _set(config, path.split("."), value, path)
    return config


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """Turn `["a.b=c"]` from a command line into `{"a.b": "c"}`."""
    changes = {}
    for item in assignments:
        path, equals, value = item.partition("=")
        if not equals or not path:
            raise ValueError(
                f"--set {item!r} is not of the form name=value, e.g. optim.lr=1e-3"
            )
        changes[path.strip()] = value.strip()
    return changes


def to_dict(config: Any) -> Any:
    """Plain dicts, lists and scalars of a configuration; mixers carry their type."""
    if dataclasses.is_dataclass(config):
        fields = {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"type": config.type, **fields} if hasattr(config, "type") else fields
    if isinstance(config, tuple):
        return [to_dict(item) for item in config]
    return config


def from_dict(data: Mapping[str, Any], kind: type = TrainConfig) -> Any:
    """Inverse of `to_dict`. Fields that are missing take their defaults.

    Raises:
      ValueError: an unknown field, with the nearest name that exists, or a value of the
        wrong type.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{data!r} is no {kind.__name__}; give an object with its fields")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in data.items():
        if name not in hints or name not in _field_names(kind):
            raise ValueError(_unknown(name, kind, name))
        values[name] = _from_plain(value, hints[name], name)
    return kind(**values)


def to_json(config: Any) -> str:
    """JSON text of a configuration."""
    return json.dumps(to_dict(config), indent=2)


def from_json(text: str, kind: type = TrainConfig) -> Any:
    """Inverse of `to_json`."""
    return from_dict(json.loads(text), kind)


def _field_names(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


def _unknown(name: str, kind: type, path: str) -> str:
    names = _field_names(kind)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"fields: {', '.join(names)}"
    return f"unknown field {path!r} in {kind.__name__}: {hint}"


def _set(config: Any, path: list[str], value: Any, whole: str) -> Any:
    head, *rest = path
    kind = type(config)
    if not dataclasses.is_dataclass(config):
        raise ValueError(
            f"{whole!r}: {'.'.join(path)!r} is below a plain value; it has no fields"
        )
    if head not in _field_names(kind):
        raise ValueError(_unknown(head, kind, whole))
    if rest:
        new = _set(getattr(config, head), rest, value, whole)
    else:
        new = _from_plain(value, typing.get_type_hints(kind)[head], whole)
    return dataclasses.replace(config, **{head: new})


def _from_plain(value: Any, hint: Any, path: str) -> Any:
    """Convert a JSON or command-line value to the annotated type."""
    options = (
        typing.get_args(hint)
        if typing.get_origin(hint) in (types.UnionType, typing.Union)
        else (hint,)
    )
    if dataclasses.is_dataclass(value):
        return value
    if any(option in MIXER_CONFIGS.values() for option in options):
        return _mixer(value, path)
    if isinstance(value, Mapping) and dataclasses.is_dataclass(options[0]):
        return from_dict(value, options[0])
    if dataclasses.is_dataclass(options[0]):
        raise ValueError(
            f"{path!r} is a group of fields; set one of them, e.g. {path}."
            f"{_field_names(options[0])[0]}"
        )
    if isinstance(value, str) and (value in ("None", "null") and type(None) in options):
        return None
    if value is None and type(None) in options:
        return None
    if isinstance(value, str) and str not in options and not _is_text(options):
        try:
            value = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"{path}={value!r} is not a value of type {_show(hint)}") from None
    for option in options:
        converted = _convert(value, option)
        if converted is not _WRONG:
            return converted
    raise ValueError(f"{path}={value!r} is not a value of type {_show(hint)}")


_WRONG = object()


def _convert(value: Any, option: Any) -> Any:
    origin = typing.get_origin(option)
    if origin is typing.Literal:
        return value  # the dataclass names the choices in its own error
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            value = (value,)
        inner = typing.get_args(option)
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) != len(value):
            return _WRONG
        items = tuple(_convert(v, k) for v, k in zip(value, kinds, strict=True))
        return _WRONG if any(item is _WRONG for item in items) else items
    if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if option is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if option is bool:
        return value if isinstance(value, bool) else _WRONG
    if option in (int, str):
        return value if isinstance(value, option) and not isinstance(value, bool) else _WRONG
    return _WRONG


def _is_text(options: tuple) -> bool:
    return any(typing.get_origin(option) is typing.Literal for option in options)


def _show(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)


def _mixer(value: Any, path: str) -> Any:
    data = dict(value) if isinstance(value, Mapping) else {"type": value}
    kind = data.pop("type", None)
    if not isinstance(kind, str) or kind not in MIXER_CONFIGS:
        raise ValueError(f"{path}: mixer type {kind!r}; choose one of {sorted(MIXER_CONFIGS)}")
    return from_dict(data, MIXER_CONFIGS[kind])
