"""Checks that configurations of several mixers share; each names the field and its value."""

from __future__ import annotations

from typing import Any

from hope_jax.config.check import choose, require


def counts(config: Any, *fields: str) -> None:
    """Fields that count something are at least 1."""
    for field in fields:
        value = getattr(config, field)
        require(value >= 1, f"mixer.{field} is {value}; use at least 1")


def optional_counts(config: Any, **fields: str) -> None:
    """Fields that are None, whose meaning is given, or at least 1."""
    for field, meaning in fields.items():
        value = getattr(config, field)
        require(
            value is None or value >= 1,
            f"mixer.{field} is {value}; use None ({meaning}) or at least 1",
        )


def positive(config: Any, *fields: str) -> None:
    """Fields that are positive numbers."""
    for field in fields:
        value = getattr(config, field)
        require(value > 0, f"mixer.{field} is {value}; use a positive number")


def shares(config: Any, *fields: str) -> None:
    """Fields that lie strictly between 0 and 1."""
    for field in fields:
        value = getattr(config, field)
        require(0 < value < 1, f"mixer.{field} is {value}; it lies strictly between 0 and 1")


def convolution(config: Any) -> None:
    """`conv` is a width, or 0."""
    require(config.conv >= 0, f"mixer.conv is {config.conv}; use 0 (off) or a positive width")


def remat(config: Any) -> None:
    """`remat` is one of what `hope_jax.ops.recompute` knows."""
    choose("mixer.remat", config.remat, "auto", "none", "chunk", "sqrt")


def rates(config: Any) -> None:
    """The initial rate is below its limit."""
    require(
        0 < config.start_rate < config.rate_limit,
        f"mixer.initial_rate {config.start_rate} must lie between 0 and "
        f"mixer.max_rate {config.rate_limit}",
    )


def whole_heads(config: Any, dim: int) -> None:
    """`heads` divides the width of the model."""
    require(
        dim % config.heads == 0,
        f"model.dim {dim} is not a multiple of mixer.heads {config.heads}",
    )


def rotary_heads(config: Any, dim: int) -> None:
    """`heads` divides the width of the model into pairs, for rotary positions."""
    require(
        dim % config.heads == 0 and (dim // config.heads) % 2 == 0,
        f"model.dim {dim} over mixer.heads {config.heads} must give an even whole head size; "
        f"choose heads that divide {dim // 2}",
    )


def rotary(config: Any) -> None:
    """`rope_theta` is the base of rotary positions."""
    theta = config.rope_theta
    require(theta > 0, f"mixer.rope_theta is {theta}; use a positive base")
