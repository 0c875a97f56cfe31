"""Pictures of a run: the loss curve, and the loss by position in the window."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def loss_curve(records: Sequence[dict[str, Any]], path: Path, levels: dict[str, float]) -> None:
    """Training and held-out loss over the steps, as PNG.

    Args:
      records: those of `metrics.jsonl`.
      path: where to.
      levels: losses drawn as horizontal lines, by name: the baselines.
    """
    figure, axes = _axes("training step", "loss, nats per token")
    for key, label, style in (("loss", "training", "-"), ("eval/loss", "held-out", "o-")):
        points = [(r["step"], r[key]) for r in records if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    for number, (name, loss) in enumerate(levels.items()):
        axes.axhline(loss, linestyle="--", linewidth=1, color=f"C{number + 2}", label=name)
    if axes.has_data():
        axes.legend()
    figure.savefig(path, dpi=120)


def accuracy_curve(records: Sequence[dict[str, Any]], path: Path, chance: float) -> None:
    """Share of right answers on held-out examples over the steps, as PNG.

    Args:
      records: those of `metrics.jsonl`.
      path: where to.
      chance: drawn as a line.
    """
    figure, axes = _axes("training step", "right answers, held-out examples")
    points = [(r["step"], r["eval/accuracy"]) for r in records if "eval/accuracy" in r]
    if points:
        axes.plot(*zip(*points, strict=True), "o-", markersize=4, label="right")
    axes.axhline(chance, linestyle="--", linewidth=1, color="C1", label="chance")
    axes.set_ylim(-0.02, 1.02)
    axes.legend()
    figure.savefig(path, dpi=120)


def position_curve(losses: dict[str, Sequence[float]], path: Path) -> None:
    """Loss by position in the window, one line for each way of reading, as PNG."""
    figure, axes = _axes("position in the window, tokens", "held-out loss, nats per token")
    for label, loss_T in losses.items():
        first, last, means = zip(*by_bin(loss_T), strict=True)
        axes.plot(np.add(first, last) / 2, means, "o-", label=label, markersize=3)
    axes.set_xscale("log")
    axes.legend()
    figure.savefig(path, dpi=120)


def by_bin(loss_T: Sequence[float]) -> list[tuple[int, int, float]]:
    """Mean loss of the tokens `first` to `last` of a window, counted from 1, by `bins`.

    >>> by_bin([3.0, 2.0, 1.0, 1.0])
    [(1, 1, 3.0), (2, 2, 2.0), (3, 4, 1.0)]
    """
    edges = itertools.pairwise(bins(len(loss_T)))
    return [(a + 1, b, statistics.fmean(loss_T[a:b])) for a, b in edges]


def bins(length: int) -> list[int]:
    """Edges of position bins that grow with the position; every bin holds some.

    >>> bins(10)
    [0, 1, 2, 4, 5, 8, 10]
    """
    edges = {0, length}
    step = 1.0
    while step < length:
        edges.add(int(step))
        step *= 2**0.5
    return sorted(edges)


def _axes(x: str, y: str):
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes
