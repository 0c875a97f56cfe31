"""What learning within a text costs: training steps beside those of the frozen model.

    python experiments/in_context/step_time.py

All models take turns in one process, so that a noisy machine is noisy for all of them.
Operations are counted (`hope_jax.models.flops`); where a step takes longer than they say, it is
bound by something else. Results go to experiments/results/in_context/step_time.{json,md}.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import platform
import time
from pathlib import Path

import jax
import numpy as np
from rich.progress import track

from hope_jax.config import (
    CMSConfig,
    DataConfig,
    GatedDeltaNetConfig,
    InContextConfig,
    ModelConfig,
    SelfModifyingConfig,
    TrainConfig,
)
from hope_jax.models import LanguageModel, flops_per_token, init_params
from hope_jax.optim import make
from hope_jax.training.identity import versions
from hope_jax.training.objective import token_losses
from hope_jax.training.state import TrainState
from hope_jax.training.step import make_step

OUT = Path(__file__).resolve().parents[1] / "results" / "in_context"
MIXERS = {"self_modifying": SelfModifyingConfig, "gated_delta_net": GatedDeltaNetConfig}


def variants(chunk: int) -> dict[str, InContextConfig]:
    """What is compared; the default adapts the last quarter of the blocks."""
    base = InContextConfig(chunks=(chunk,))
    change = functools.partial(dataclasses.replace, base)
    return {
        "frozen": InContextConfig(),
        "through": base,
        "first_order": change(outer="first_order"),
        "local": change(loss="local"),
        "rank 8": change(rank=8),
        "all blocks": change(blocks=4),
        "all blocks, first order": change(blocks=4, outer="first_order"),
    }


class Case:
    """One model's training step, compiled."""

    def __init__(self, mixer: str, how: InContextConfig, args: argparse.Namespace):
        cms = CMSConfig(in_context=how)
        model = ModelConfig(
            dim=args.dim, depth=4, mixer=MIXERS[mixer](heads=args.dim // 64), cms=cms
        )
        config = TrainConfig(model=model, data=DataConfig(batch=args.batch, length=args.length))
        params = init_params(model, jax.random.key(0))
        levels = make(config, params)
        losses = functools.partial(token_losses, LanguageModel(model))
        zero = np.zeros((), np.int32)
        self._state = TrainState(zero, zero, params, levels.init(params))
        shape = (args.batch, args.length + 1)
        tokens = np.random.default_rng(0).integers(256, size=shape, dtype=np.int32)
        self._batch = {"tokens": tokens, "reset": np.zeros((args.batch, args.length), bool)}
        began = time.perf_counter()
        step = jax.jit(make_step(losses, levels, config))
        self._step = step.lower(self._state, self._batch).compile()
        self.compile_seconds = time.perf_counter() - began
        self.flops = flops_per_token(model, args.length).training
        memory = self._step.memory_analysis()
        self.temporary = memory.temp_size_in_bytes
        self.seconds: list[float] = []

    def measure(self) -> None:
        """One step, in seconds of processor time."""
        began = time.process_time()
        jax.block_until_ready(self._step(self._state, self._batch))
        self.seconds.append(time.process_time() - began)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=64, help="tokens per update")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mixers", nargs="+", choices=MIXERS, default=list(MIXERS))
    args = parser.parse_args()
    cases = {
        (mixer, name): Case(mixer, how, args)
        for mixer in args.mixers
        for name, how in track(variants(args.chunk).items(), f"compiling {mixer}")
    }
    for _ in track(range(args.rounds + 1), "measuring"):
        for case in cases.values():
            case.measure()
    rows = []
    for (mixer, name), case in cases.items():
        frozen = cases[mixer, "frozen"]
        taken, base = (np.asarray(c.seconds[1:]) for c in (case, frozen))
        ratios = taken / base
        rows.append(
            {
                "mixer": mixer,
                "within a text": name,
                "CPU s per step": round(float(np.median(taken)), 3),
                "times frozen": round(float(np.median(ratios)), 2),
                "from": round(float(ratios.min()), 2),
                "to": round(float(ratios.max()), 2),
                "operations, times frozen": round(case.flops / frozen.flops, 2),
                "temporary memory, MiB": round(case.temporary / 2**20),
                "compile, s": round(case.compile_seconds, 1),
            }
        )
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {"settings": vars(args), "versions": versions(), "machine": platform.machine()}
    facts |= {"cores": len(os.sched_getaffinity(0)), "rows": rows}
    (OUT / "step_time.json").write_text(json.dumps(facts, indent=1) + "\n")
    page = to_page(facts)
    (OUT / "step_time.md").write_text(page)
    print(page)


def to_page(facts: dict) -> str:
    """The table, and where it comes from."""
    rows, settings = facts["rows"], dict(facts["settings"])
    mixers = " ".join(settings.pop("mixers"))
    flags = " ".join(f"--{name} {value}" for name, value in settings.items())
    packages = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"Written by `python experiments/in_context/step_time.py {flags} --mixers {mixers}`. "
        "Training steps of four layers; medians, and the range of the ratio within a round.",
        "",
        "| " + " | ".join(rows[0]) + " |",
        "|" + "---|" * len(rows[0]),
        *("| " + " | ".join(map(str, row.values())) + " |" for row in rows),
        "",
        f"CPU, {facts['machine']}, cores {facts['cores']}; {packages}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
