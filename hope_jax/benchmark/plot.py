"""The results as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hope_jax.benchmark.results import Results, decoding_speed


def write_plot(results: Results, path: Path) -> None:
    """Write training speed, memory and decoding speed over the length to `path`."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    speed, memory, decode = figure.subplots(1, 3)

    def trained(value: Callable[[Any], float]) -> dict[str, list[tuple[int, float]]]:
        return _by_model((t.model, t.length, value(t)) for t in results.training if t.spent)

    _lines(speed, trained(lambda t: results.training_speed(t)["tokens_per_cpu_second"]))
    speed.set(title="training", xlabel="sequence length", ylabel="tokens per CPU-second")
    _lines(memory, trained(lambda t: (t.compiled_bytes or t.process_bytes) / 2**20))
    memory.set(title="memory of a training step", xlabel="sequence length", ylabel="MiB")
    memory.set_yscale("log")
    _lines(
        decode,
        _by_model(
            (d.model, d.context, decoding_speed(d)["tokens_per_second"])
            for d in results.decoding
            if d.spent
        ),
    )
    decode.set(title="decoding, batch 1", xlabel="tokens read before", ylabel="tokens/s")
    for axes in (speed, decode):
        axes.set_ylim(bottom=0)
    speed.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _by_model(points) -> dict[str, list[tuple[int, float]]]:
    lines: dict[str, list[tuple[int, float]]] = {}
    for model, x, y in points:
        lines.setdefault(model, []).append((x, y))
    return lines


def _lines(axes, lines: dict[str, list[tuple[int, float]]]) -> None:
    for model, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=model)
    ticks = sorted({x for points in lines.values() for x, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
    axes.grid(alpha=0.3)
