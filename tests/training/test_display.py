"""Progress on a terminal and elsewhere, plots, and the speed meter."""

import io
import time

import jax
import pytest
from rich.console import Console

from hope_jax.training import plots
from hope_jax.training.progress import ProgressDisplay
from hope_jax.training.speed import PEAKS, Peak, SpeedMeter, peak_flops

VALUES = {"loss": 2.34567, "tokens_per_second": 12345.0}


def show(terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, soft_wrap=True)
    display = ProgressDisplay(20, console)
    display.begin(10)
    display.step(14)
    display.log(15, VALUES)
    display.say("a path: /tmp/[x]/checkpoints/200")
    display.close()
    return out.getvalue()


def test_lines_without_a_terminal():
    out = show(terminal=False)
    assert "step 15/20  loss 2.3457  12,345 tokens/s  0:00 left" in out
    assert "/tmp/[x]/checkpoints/200" in out and "\x1b" not in out


def test_bar_on_a_terminal():
    out = show(terminal=True)
    assert "15/20" in out and "loss 2.3457  12,345 tokens/s" in out
    assert "/tmp/[x]/checkpoints/200" in out and "\x1b" in out


def test_plots_are_pictures(tmp_path):
    records = [{"step": n, "loss": 3.0 / n} for n in range(1, 9)] + [
        {"step": 4, "eval/loss": 1.0},
        {"step": 5, "loss": None, "first_bad": "loss"},
    ]
    plots.loss_curve(records, tmp_path / "a.png", {"byte 3-gram": 1.7})
    plots.position_curve({"on": [3.0, 2.0, 1.0], "off": [3.0] * 3}, tmp_path / "b.png")
    plots.loss_curve([], tmp_path / "c.png", {})
    for name in ("a.png", "b.png", "c.png"):
        content = (tmp_path / name).read_bytes()
        assert content[:4] == b"\x89PNG" and len(content) > 5_000


@pytest.mark.parametrize("length", [1, 2, 17, 256])
def test_bins_cover_every_position_once(length):
    edges = plots.bins(length)
    assert edges[0] == 0 and edges[-1] == length and edges == sorted(set(edges))


def test_speed_counts_only_training_time(monkeypatch):
    now = 7.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    meter = SpeedMeter(flops_per_token=100.0, peak=Peak(1e6, "of this test"))
    now += 4
    meter.report()
    meter.add(50)
    with meter.paused():
        now += 0.3
    now += 0.05
    values = meter.report()
    assert values["tokens_per_second"] == pytest.approx(1000)
    assert values["mfu"] == pytest.approx(1000 * 100 / 1e6)
    assert "mfu" not in SpeedMeter(100.0, None).report()


class Chip:
    """A device as JAX names it."""

    platform = "tpu"

    def __init__(self, kind):
        self.device_kind = kind


def test_peak_is_measured_on_a_cpu_and_looked_up_elsewhere():
    here = peak_flops(jax.devices("cpu")[:1])
    assert here.flops > 1e8 and here.source.startswith("measured")
    kinds = {"TPU v5 lite": 197e12, "TPU v5p": 459e12, "TPU v5": 459e12, "TPU v6 lite": 918e12}
    kinds |= {"NVIDIA H200": 989e12, "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA L4": 121e12}
    assert {kind: peak_flops([Chip(kind)]).flops for kind in kinds} == kinds
    assert peak_flops([Chip("abacus")]) is None
    assert all(flops > 1e13 for _, flops in PEAKS)
