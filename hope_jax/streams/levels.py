"""Which levels of the CMS learn in a stream, whatever the model was trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hope_jax.config import InContextConfig, ModelConfig
from hope_jax.config.check import require


def learning_config(
    config: ModelConfig,
    levels: Mapping[int, int] | Sequence[int] | None = None,
    **changes: Any,
) -> ModelConfig:
    """The configuration of a model whose levels learn as asked for.

    Args:
      config: of the model as it was trained.
      levels: tokens per update by period of `cms.periods`; levels that are not in it do not
        learn. Tokens per update alone: the MLPs of the blocks that learn become as many levels
        (`InContextConfig.stack`), which takes a model with one period. None: as trained.
        Empty: no level learns.
      **changes: other fields of `InContextConfig`, such as `lr` or `blocks`.

    Raises:
      ValueError: a period that no level has, chunks that do not nest, or a setting for a model
        of which no level learns.

    >>> from hope_jax.config import CMSConfig
    >>> config = ModelConfig(cms=CMSConfig(periods=(1, 4)))
    >>> learning_config(config, {1: 64}, lr=0.5).cms.in_context.chunks
    (64, 0)
    >>> learning_config(ModelConfig(depth=8), (64, 512), blocks=4).cms.in_context.stack
    'interleaved'
    """
    how, periods = config.cms.in_context, config.cms.periods
    changes = {name: value for name, value in changes.items() if value is not None}
    if levels and not isinstance(levels, Mapping):
        stack = changes.get("stack", how.stack if how.stacked else "interleaved")
        changes |= {"chunks": tuple(levels), "stack": stack}
    elif levels is not None:
        levels = dict(levels)
        unknown = [period for period in levels if period not in periods]
        require(
            not unknown,
            f"no level has period {unknown[0] if unknown else ''}; the model has periods "
            f"{', '.join(map(str, periods))}",
        )
        chunks = tuple(levels.get(period, 0) for period in periods)
        changes |= {"chunks": chunks, "stack": "none"} if any(chunks) else {}
        how = how if any(chunks) else InContextConfig()
    require(
        how.on or "chunks" in changes or not changes,
        f"{', '.join(changes)}: no level of this model learns from what it reads; name some, "
        f"such as levels={{{periods[0]}: 64}}",
    )
    if "chunks" in changes and "lr" not in changes and isinstance(how.lr, tuple):
        changes["lr"] = _rates(how, changes["chunks"])
    how = dataclasses.replace(how, **changes) if changes else how
    return dataclasses.replace(config, cms=dataclasses.replace(config.cms, in_context=how))


def _rates(how: InContextConfig, chunks: tuple[int, ...]) -> float | tuple[float, ...]:
    """Rates for other chunks: each level keeps its own, and where there are more or fewer
    levels than before, all have that of the fastest.
    """
    learning = [i for i, chunk in enumerate(chunks) if chunk]
    before = [i for i, chunk in enumerate(how.chunks) if chunk]
    if len(chunks) != len(how.chunks) or not set(learning) <= set(before):
        return how.lr[0]
    rates = tuple(how.lr[before.index(i)] for i in learning)
    return rates if len(rates) > 1 else rates[0]


def frozen_config(config: ModelConfig) -> ModelConfig:
    """The same model, of which no level learns while it reads."""
    cms = dataclasses.replace(config.cms, in_context=InContextConfig())
    return dataclasses.replace(config, cms=cms)
