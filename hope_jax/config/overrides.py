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

from hope_jax.config.train import TrainConfig


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """Return `config` with dotted fields replaced, all at once.

    The order of the changes does not matter: fields that must fit one another, such as
    `model.dim` and `model.mixer.heads`, are checked when all are in place.

    Args:
      config: a frozen dataclass.
      changes: dotted field name -> value. Strings (from a command line) are read as
        Python literals where the field is not a string, and blanks around them do not count.
        A mixer may be set by its type name, which gives that mixer's defaults; fields of the
        new mixer may be set with it.

    Raises:
      ValueError: an unknown field (with the nearest name), a value of the wrong type, or
        values that do not fit one another.
    """
    return _change(config, [(path.split("."), value, path) for path, value in changes.items()])


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """Turn `["a.b=c"]` from a command line into `{"a.b": "c"}`.

    The value is kept as it is: a text may begin or end with blanks or a newline. Only where a
    blank stands before the "=" do those after it go too.

    >>> parse_assignments(["optim.lr = 1e-3", "sample_prompt=To be "])
    {'optim.lr': '1e-3', 'sample_prompt': 'To be '}
    """
    changes = {}
    for item in assignments:
        path, equals, value = item.partition("=")
        if not equals or not path:
            raise ValueError(f"{item!r} is not of the form name=value, e.g. optim.lr=1e-3")
        changes[path.strip()] = value.lstrip(" ") if path.endswith(" ") else value
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
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise ValueError(f"{kind.__name__} needs {field.name!r}; {dict(data)!r} lacks it")
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
    if not names:
        return f"unknown field {path!r}: {kind.__name__} has no fields"
    longer = [known for known in names if known.startswith(name)]
    close = longer or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"fields: {', '.join(names)}"
    return f"unknown field {path!r} in {kind.__name__}: {hint}"


def _change(config: Any, changes: list[tuple[list[str], Any, str]]) -> Any:
    """`config` with changes (parts of the name below `config`, value, whole name)."""
    kind = type(config)
    if not dataclasses.is_dataclass(config):
        path, _, whole = changes[0]
        raise ValueError(
            f"{whole!r}: {'.'.join(path)!r} is below a plain value; it has no fields"
        )
    new, below = {}, {}
    for (head, *rest), value, whole in changes:
        if head not in _field_names(kind):
            raise ValueError(_unknown(head, kind, whole))
        if rest:
            below.setdefault(head, []).append((rest, value, whole))
        else:
            hint = typing.get_type_hints(kind)[head]
            if isinstance(value, str) and str not in _options(hint):
                value = value.strip()
            new[head] = _from_plain(value, hint, whole)
    for head, some in below.items():
        new[head] = _change(new.get(head, getattr(config, head)), some)
    return dataclasses.replace(config, **new)


def _from_plain(value: Any, hint: Any, path: str) -> Any:
    """Convert a JSON or command-line value to the annotated type."""
    options = _options(hint)
    none = value is None or (isinstance(value, str) and value in ("None", "null"))
    if none and type(None) in options:
        return None
    if dataclasses.is_dataclass(value):
        if type(value) in options:
            return value
        raise ValueError(f"{path}: {type(value).__name__} is not a value of {_show(hint)}")
    kinds = {option.type: option for option in options if _has_type(option)}
    if kinds:
        return _kind(value, kinds, path)
    if isinstance(value, Mapping) and dataclasses.is_dataclass(options[0]):
        return from_dict(value, options[0])
    if dataclasses.is_dataclass(options[0]):
        raise ValueError(
            f"{path!r} is a group of fields; set one of them, e.g. {path}."
            f"{_field_names(options[0])[0]}"
        )
    if isinstance(value, str) and str not in options and not _is_text(options):
        value = _literal(value, path, f"a value of type {_show(hint)}")
    for option in options:
        converted = _convert(value, option)
        if converted is not _WRONG:
            return converted
    raise ValueError(f"{path}={value!r} is not a value of type {_show(hint)}")


def _options(hint: Any) -> tuple:
    """The types of a union, or the one type."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)


_WRONG = object()


def _literal(text: str, path: str, wanted: str) -> Any:
    """A Python literal from a command line."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"{path}={text!r} is not {wanted}") from None


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
    if dataclasses.is_dataclass(option):
        if isinstance(value, Mapping):
            return from_dict(value, option)
        return value if isinstance(value, option) else _WRONG
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
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(inner[0]):
        fields = ", ".join(_field_names(inner[0]))
        return f"list of {inner[0].__name__}, such as [{{...}}] with fields {fields}"
    return getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)


def _has_type(option: Any) -> bool:
    """Whether a dataclass is one of several kinds, told apart by `type`: mixers, rules."""
    return dataclasses.is_dataclass(option) and hasattr(option, "type")


def _kind(value: Any, kinds: dict[str, type], path: str) -> Any:
    if isinstance(value, str) and value.startswith("{"):  # from a command line
        value = _literal(value, path, f"one of {sorted(kinds)} with its fields")
    data = dict(value) if isinstance(value, Mapping) else {"type": value}
    kind = data.pop("type", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(
            f"{path}: {path.split('.')[-1]} type {kind!r}; choose one of {sorted(kinds)}"
        )
    return from_dict(data, kinds[kind])
