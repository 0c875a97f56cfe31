"""Print what a configuration means before anything is allocated or trained.

Levels with their periods and optimizers, every parameter with its logical axes, the fast
state that one sequence carries, and floating-point operations per token.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from hope_jax.cli.arguments import add_config

if TYPE_CHECKING:
    import rich.table

    from hope_jax.config import ModelConfig, TrainConfig

HELP = "print the levels, parameters, state and cost of a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of `hope describe`."""
    add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Print the description."""
    from hope_jax.config.load import load_config

    config = load_config(args.config, args.set)

    from rich.console import Console

    # tables that go to a file or a pipe are not cut to the width of a terminal
    console = Console() if sys.stdout.isatty() else Console(width=200)
    for section in describe(config):
        console.print(section.title, style="bold", highlight=False)
        console.print(section.table)
        console.print(f"{section.note}\n" if section.note else "", highlight=False)


@dataclasses.dataclass(frozen=True)
class Section:
    """A table with what stands above and below it."""

    title: str
    table: rich.table.Table
    note: str = ""


def describe(config: TrainConfig) -> list[Section]:
    """The description of a run; parameters are never allocated.

    Raises:
      ValueError: the configuration does not make a model or an optimizer.
    """
    from hope_jax.models import abstract_params

    params = abstract_params(config.model)
    return [
        _summary(config),
        _levels(config, params),
        *([_within_a_text(config.model, params)] if config.model.cms.in_context.on else []),
        _parameters(config.model),
        _state(config),
        _flops(config),
    ]


def _table(*columns: str) -> rich.table.Table:
    """A table; columns that start with '>' are flush right. Plain unless on a terminal."""
    from rich import box
    from rich.table import Table

    style = box.SIMPLE_HEAD if sys.stdout.isatty() else None
    table = Table(box=style, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.removeprefix(">"), justify="right" if right else "left", no_wrap=True
        )
    return table


def _summary(config: TrainConfig) -> Section:
    from hope_jax.models import count_params

    model, counts = config.model, count_params(config.model)
    table = _table("component", ">parameters")
    for name, count in counts.by_component.items():
        table.add_row(name, f"{count:,}")
    rows = model.vocab_rows
    padded = f" padded to {rows}" if rows > model.vocab_size else ""
    note = (
        f"mixer {model.mixer.type}, depth {model.depth}, width {model.dim}, "
        f"CMS {model.cms.variant} of hidden width {model.cms_hidden}, "
        f"vocabulary {model.vocab_size}{padded}, {model.dtype}"
    )
    return Section(f"{config.name}: {counts.total:,} parameters", table, note)


def _levels(config: TrainConfig, params: Any) -> Section:
    import jax

    from hope_jax.optim import make

    levels = make(config, params)
    state = jax.eval_shape(levels.init, params)
    parts = levels.split(params)
    table = _table("level", ">period", ">parameters", ">bytes", "optimizer", ">optimizer bytes")
    for level in levels.levels:
        own = config.optim.at(level.period)
        rate = config.optim.lr * own.lr_factor
        table.add_row(
            level.name,
            str(level.period),
            f"{_size(parts[level.name]):,}",
            _bytes(parts[level.name]),
            f"{own.rule.type}, learning rate {rate:g}, {own.schedule}",
            _bytes(state.levels[level.name]),
        )
    return Section("levels, fastest first; periods in training steps", table)


def _within_a_text(model: ModelConfig, params: Any) -> Section:
    import jax

    from hope_jax.layers.fast_weights import moving
    from hope_jax.models.in_context import fresh_fast

    how = model.cms.in_context
    fast = jax.eval_shape(lambda p: fresh_fast(model, p, 1), params)
    table = _table(
        "level",
        ">tokens per update",
        ">blocks",
        ">fast weights",
        ">bytes",
        ">optimizer bytes",
    )
    for name, level in moving(model).items():
        weights, state = fast.weights[name], fast.levels.levels[name]
        table.add_row(
            name,
            f"{level.chunk:,}",
            f"{len(level.blocks)}",
            f"{_size(weights):,}",
            _bytes(weights),
            _bytes(state),
        )
    blocks = how.adapting(model.depth)
    kind = "whole matrices" if how.rank is None else f"rank {how.rank}"
    rates = ", ".join(f"{rate:g}" for rate in dict.fromkeys(how.rates))
    learned = ", times a learned factor" if how.learn_lr else ""
    shared = f", each of one level ({how.stack})" if how.stacked else ""
    note = (
        f"in the last {blocks} of {model.depth} blocks{shared}, {kind}, {how.rule} at {rates}"
        f"{learned}, on the {how.loss.replace('_', '-')} loss; per text"
    )
    return Section("levels within a text, fastest first", table, note)


def _parameters(model: ModelConfig) -> Section:
    from hope_jax.models import param_shapes

    table = _table("path", "shape", "logical axes", ">parameters")
    for path, param in param_shapes(model).items():
        axes = ", ".join(axis or "-" for axis in param.axes)
        table.add_row(path, " x ".join(map(str, param.shape)), axes, f"{param.size:,}")
    return Section("parameters, float32", table)


def _state(config: TrainConfig) -> Section:
    import jax

    from hope_jax.models import abstract_state

    length = config.data.length
    before, after = (abstract_state(config.model, length=n) for n in (0, length))
    table = _table("part", "shape (all layers)", "type", ">bytes")
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        table.add_row(name, " x ".join(map(str, leaf.shape)), str(leaf.dtype), _bytes(leaf))
    growth = "the same after any number of tokens"
    if _size(before) != _size(after):
        growth = f"{_bytes(before)} before the first token; it grows with every token"
    note = f"{_bytes(after)} after {length} tokens; {growth}"
    title = "fast state of one sequence"
    if config.model.cms.in_context.on:
        title += ", of its mixers"
    return Section(title, table, note)


def _flops(config: TrainConfig) -> Section:
    from hope_jax.models import flops_per_token

    length = config.data.length
    flops = flops_per_token(config.model, length)
    table = _table("component", ">forward", ">share")
    for name in ("mixer", "cms", "head"):
        value = getattr(flops, name)
        table.add_row(name, f"{value:,.0f}", f"{value / flops.forward:.1%}")
    if flops.inner:
        label = "learning within the text"
        table.add_row(label, f"{flops.inner:,.0f}", f"{flops.inner / flops.forward:.1%}")
    tokens = config.steps * config.data.batch * length
    note = (
        f"training: {flops.training:,.0f} per token; {flops.training * tokens:.3g} for "
        f"{config.steps:,} steps, {tokens:,} tokens"
    )
    title = f"floating-point operations per token, sequences of {length} tokens"
    return Section(title, table, note)


def _size(tree: Any) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> str:
    import jax

    count = float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
