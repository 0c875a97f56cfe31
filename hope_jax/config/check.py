"""Errors of configuration: what was wrong, with the value, and what to do."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """Raise `ValueError(message)` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def choose(field: str, value: object, *allowed: object) -> None:
    """Raise `ValueError` unless `value` is one of `allowed`."""
    require(
        value in allowed, f"{field} is {value!r}; choose one of {', '.join(map(repr, allowed))}"
    )
