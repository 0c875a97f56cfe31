"""Measurements and what is computed from them; JSON on disk."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import jax

import hope_jax
from hope_jax.benchmark.cases import REFERENCE, Settings
from hope_jax.benchmark.measure import Spent


@dataclasses.dataclass
class Training:
    """A training step of one model at one length; `spent` has one entry per round."""

    model: str
    length: int
    batch: int
    params: int
    flops_per_token: float  # analytic, forward and backward
    compile: Spent
    compiled_bytes: int | None
    process_bytes: int = 0
    spent: list[Spent] = dataclasses.field(default_factory=list)
    skipped: str | None = None  # why there is no measurement

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.batch * self.length


@dataclasses.dataclass
class Decoding:
    """Writing token by token at batch 1 after reading `context` tokens."""

    model: str
    context: int
    tokens: int
    state_bytes: int
    prefill: list[Spent] = dataclasses.field(default_factory=list)
    spent: list[Spent] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Results:
    """Everything that one run of `hope bench` measured."""

    settings: Settings
    machine: dict[str, Any]
    training: list[Training] = dataclasses.field(default_factory=list)
    decoding: list[Decoding] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The measurements, and the speeds and ratios taken from them."""
        training = [{**dataclasses.asdict(t), **self.training_speed(t)} for t in self.training]
        decoding = [{**dataclasses.asdict(d), **decoding_speed(d)} for d in self.decoding]
        return {
            "settings": dataclasses.asdict(self.settings),
            "machine": self.machine,
            "training": training,
            "decoding": decoding,
            "flatness": self.flatness(),
        }

    def training_speed(self, case: Training) -> dict[str, Any]:
        """Medians over the rounds, and ratios to the reference within each round."""
        if not case.spent:
            return {}
        per_cpu = [case.tokens / s.cpu for s in case.spent]
        per_wall = [case.tokens / s.wall for s in case.spent]
        speed = {
            "tokens_per_second": statistics.median(per_wall),
            "tokens_per_cpu_second": statistics.median(per_cpu),
        }
        for unit in ("second", "cpu_second"):
            speed[f"flops_per_{unit}"] = case.flops_per_token * speed[f"tokens_per_{unit}"]
        for other in self.training:
            if (other.model, other.length) == (REFERENCE, case.length) and other.spent:
                ratios = [b.cpu / a.cpu for a, b in zip(case.spent, other.spent, strict=False)]
                speed["ratio"] = statistics.median(ratios)
                speed["ratio_range"] = [min(ratios), max(ratios)]
        return speed

    def flatness(self) -> dict[str, float]:
        """Per model, time per token at its greatest length over that at its smallest."""
        factors = {}
        for model in self.settings.models:
            speeds = self._speeds(model)
            if len(speeds) > 1:
                factors[model] = speeds[min(speeds)] / speeds[max(speeds)]
        return factors

    def lengths(self, model: str) -> list[int]:
        """Those at which the training of a model was measured and not skipped, in order."""
        return sorted(self._speeds(model))

    def _speeds(self, model: str) -> dict[int, float]:
        return {
            t.length: self.training_speed(t)["tokens_per_cpu_second"]
            for t in self.training
            if t.model == model and t.spent
        }


def decoding_speed(case: Decoding) -> dict[str, float]:
    """Medians over the rounds."""
    if not case.spent:
        return {}
    return {
        "tokens_per_second": case.tokens / statistics.median(s.wall for s in case.spent),
        "tokens_per_cpu_second": case.tokens / statistics.median(s.cpu for s in case.spent),
        "prefill_seconds": statistics.median(s.wall for s in case.prefill),
    }


def write_json(results: Results, path: Path) -> None:
    """Write `results` to `path`."""
    path.write_text(json.dumps(results.to_json(), indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Versions and device, for the record."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "hope_jax": hope_jax.__version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
