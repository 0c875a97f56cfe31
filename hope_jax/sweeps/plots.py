"""Pictures over many runs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from hope_jax.sweeps.report import Group

LOSS = "held-out loss, nats per token"
MOST = 20  # more lines than colours cannot be told apart


def plot_losses(groups: Sequence[Group], path: Path) -> Path:
    """Held-out loss of every group, a dot per seed, the best on top."""
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    for height, group in enumerate(reversed(groups)):
        losses = [run.loss for run in group.runs]
        axes.plot(losses, [height] * len(losses), "o", color="C0", markersize=5, alpha=0.6)
        axes.plot(group.loss, height, "|", color="C1", markersize=14, markeredgewidth=2)
    axes.set_yticks(range(len(groups)), [group.label for group in reversed(groups)])
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.set_xlabel(f"{LOSS}; bars are means over seeds")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    return path


def plot_curves(groups: Sequence[Group], path: Path) -> Path:
    """Training loss of the best groups over the steps, first seed."""
    figure, axes = _lines()
    for group in groups[:MOST]:
        curve = group.runs[0].curve()
        if curve:
            axes.plot(*zip(*curve, strict=True), label=group.label, linewidth=1)
    axes.set(xlabel="training step", ylabel="training loss, nats per token", yscale="log")
    return _save(figure, axes, path)


def plot_positions(groups: Sequence[Group], path: Path) -> Path:
    """Held-out loss against the position in a window, mean over seeds: who uses its context.

    The first tokens, of which nobody can know much, are cut off at the top.
    """
    figure, axes = _lines()
    ends, lowest = [], math.inf
    for group in groups[:MOST]:
        found = [positions for run in group.runs if (positions := run.positions())]
        first, last, losses = np.mean(found, axis=0).T
        middles = np.sqrt(first * last)
        ends.append(losses[-1])
        lowest = min(lowest, losses.min())
        axes.plot(middles, losses, "o-", label=group.label, linewidth=1, markersize=3)
    room = max(max(ends) - min(ends), 0.05)
    axes.set(xlabel="position in the window, tokens", ylabel=LOSS, xscale="log")
    axes.set_ylim(lowest - 0.3 * room, max(ends) + 3 * room)
    return _save(figure, axes, path)


def plot_tuning(groups: Sequence[Group], field: str, path: Path) -> Path:
    """Held-out loss against the field that was tuned, one line for each of the rest."""
    figure, axes = _lines()
    rows: dict[str, list[Group]] = {}
    for group in groups:
        rest = [str(v) for f, v in group.values.items() if f != field and v is not None]
        rows.setdefault(", ".join(rest) or "all", []).append(group)
    numbers = all(isinstance(g.values[field], (int, float)) for g in groups)
    best_first = sorted(rows.items(), key=lambda row: min(g.loss for g in row[1]))
    for label, row in best_first[:MOST]:
        row = sorted(row, key=lambda g: g.values[field] if numbers else str(g.values[field]))
        x = [g.values[field] if numbers else str(g.values[field]) for g in row]
        common = os.path.commonprefix([g.name for g in row]).rpartition("-")[0]
        axes.plot(x, [g.loss for g in row], "o-", label=common or label, markersize=4)
    if numbers and min(g.values[field] for g in groups) > 0:
        axes.set_xscale("log")
    axes.set(xlabel=field, ylabel=LOSS)
    _leave_out_what_is_far(axes)
    return _save(figure, axes, path)


def _leave_out_what_is_far(axes: Axes) -> None:
    """End the plot where its lines can be told apart, and say how many points lie above.

    Points that are twice as far from the best as three quarters of them are left out: one that
    diverged would press all others into a line.
    """
    losses = sorted(y for line in axes.lines for y in line.get_ydata())
    lowest = losses[0]
    top = lowest + 2 * (losses[3 * (len(losses) - 1) // 4] - lowest)
    above = sum(loss > top for loss in losses)
    if not above or top == lowest:
        return
    axes.set_ylim(lowest - 0.05 * (top - lowest), top)
    axes.set_title(f"{above} of {len(losses)} points lie above", fontsize="small", loc="right")


def _lines() -> tuple[Figure, Axes]:
    """An empty plot with room for a legend beside it."""
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=matplotlib.colormaps["tab20"].colors)
    return figure, axes


def _save(figure: Figure, axes: Axes, path: Path) -> Path:
    axes.grid(alpha=0.3, which="both")
    if axes.has_data():
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)
    return path
