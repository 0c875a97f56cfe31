"""Training speed, model FLOP utilisation and the ten costliest operations on one accelerator.

    python experiments/pods/one_chip.py                  # 340M, HOPE and Transformer++, bf16
    python experiments/pods/one_chip.py --rows 8 --steps 20
    python experiments/pods/one_chip.py --rows 1 --steps 2 --set model.depth=1 \\
        --set model.dim=64 --set model.mixer.heads=2 --set data.length=128   # tries the script

The real training step of `experiments/hope_340m.py` on random tokens, with `--rows` sequences a
step (the preset has 128, which one chip takes in micro-batches of so many). A step is counted
when its loss is there; the first ones, which compile and warm up, are not. FLOPs are those of
the model by count, recomputation left out; the peak is the vendor's for bfloat16 without
sparsity.
Reports go to experiments/results/pods/one_chip/DEVICE.json and the table to README.md.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib.metadata
import json
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.progress import track

from hope_jax.config.load import load_config
from hope_jax.models import abstract_params
from hope_jax.models.flops import flops_per_token
from hope_jax.optim import make
from hope_jax.parallel import make_mesh, place_batch, use_mesh
from hope_jax.training.compiled import lower_step
from hope_jax.training.speed import peak_flops
from hope_jax.training.state import abstract_state, init_state

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "results" / "pods" / "one_chip"
VARIANTS = {"hope": "HOPE", "transformer": "Transformer++"}
WARM = 3
CONTAINERS = re.compile(r"(while|conditional|call|cond|jit_step|Thunk|ExecuteThunks)")


def measure(variant: str, rows: int, steps: int, sets: list[str]) -> dict[str, Any]:
    """Seconds per step, tokens/s, utilisation, peak memory, costliest operations."""
    config = load_config(f"{HERE.parent / 'hope_340m'}.py:{variant}", sets)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch=rows))
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    length, device = config.data.length, mesh.devices.flatten()[0]
    with use_mesh(mesh):
        levels = make(config, abstract_params(config.model))
        shapes = abstract_state(config, levels, mesh)
        began = time.perf_counter()
        step = lower_step(config, levels, mesh, shapes).compile()
        compiled_in = time.perf_counter() - began
        state = init_state(config, levels, shapes)
        tokens = np.random.default_rng(0).integers(
            0, config.model.vocab_size, (rows, length + 1), np.int32
        )
        parts = {"tokens": tokens, "reset": np.zeros((rows, length), bool)}
        batch = place_batch(parts, tuple(range(rows)), rows, mesh)

        def one(state):
            start = time.perf_counter()
            state, metrics = step(state, batch)
            loss = float(metrics["loss"])
            return state, loss, time.perf_counter() - start

        times = []
        for _ in track(range(WARM + steps), variant):
            state, loss, seconds = one(state)
            times.append(seconds)
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                state, loss, traced = one(state)
            operations = costliest(Path(folder))
    times = sorted(times[WARM:])
    middle = statistics.median(times)
    flops = flops_per_token(config.model, length).training * rows * length
    peak = peak_flops([device])
    memory = device.memory_stats() or {}
    return {
        "variant": variant,
        "parameters": sum(x.size for x in jax.tree.leaves(shapes.params)),
        "rows": rows,
        "length": length,
        "steps": steps,
        "seconds": middle,
        "quickest": times[0],
        "slowest": times[-1],
        "tokens_per_second": rows * length / middle,
        "flops_per_step": flops,
        "peak_flops": peak and peak.flops,
        "mfu": peak and flops / middle / peak.flops,
        "peak_bytes": memory.get("peak_bytes_in_use"),
        "compile_seconds": compiled_in,
        "loss": loss,
        "traced_seconds": traced,
        "operations": operations,
        "changed": sets,
    }


def costliest(folder: Path, most: int = 10) -> list[dict[str, Any]]:
    """Operations that took longest on the device, alike ones together, of one step."""
    (file,) = folder.glob("**/*.xplane.pb")
    profile = jax.profiler.ProfileData.from_file(str(file))
    planes = list(profile.planes)
    device = [p for p in planes if p.name.startswith("/device:")]
    seconds: dict[str, float] = collections.defaultdict(float)
    calls: dict[str, int] = collections.defaultdict(int)
    for plane in device or planes:  # a CPU has no plane of its own
        for line in plane.lines:
            if not re.search(r"XLA Ops|Stream" if device else r"XLA", line.name):
                continue
            for event in line.events:
                kind = re.sub(r"[._]?\d+", "", event.name)
                if not CONTAINERS.match(kind):
                    seconds[kind] += event.duration_ns / 1e9
                    calls[kind] += 1
    total = sum(seconds.values())
    longest = sorted(seconds, key=lambda k: -seconds[k])[:most]
    return [
        {"name": k, "seconds": seconds[k], "share": seconds[k] / total, "calls": calls[k]}
        for k in longest
    ]


def write_page(out: Path) -> str:
    """README.md with a table over all devices."""
    lines = [
        "| device | model | parameters | rows x length | tokens/s (quickest to slowest) "
        "| MFU | peak memory, GiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lists = []
    for file in sorted(out.glob("*.json")):
        found = json.loads(file.read_text())
        for facts in found["runs"]:
            tokens = facts["rows"] * facts["length"]
            spread = f"{tokens / facts['slowest']:,.0f} to {tokens / facts['quickest']:,.0f}"
            mfu = "" if facts["mfu"] is None else f"{facts['mfu']:.1%}"
            memory = facts["peak_bytes"]
            memory = "" if memory is None else f"{memory / 2**30:.1f}"
            label = VARIANTS[facts["variant"]]
            lines.append(
                f"| {found['device']} | {label} | {facts['parameters']:,} | {facts['rows']} x "
                f"{facts['length']} | {facts['tokens_per_second']:,.0f} ({spread}) | {mfu} "
                f"| {memory} |"
            )
            lists.append(f"## {label} on {found['device']}: costliest operations of a step\n")
            lists += [
                f"{i}. `{o['name']}`: {o['share']:.1%}, {o['calls']} calls"
                for i, o in enumerate(facts["operations"], 1)
            ]
            lists.append("")
    head = (__doc__ or "").strip().splitlines()[0]
    page = f"# {head}\n\n    python experiments/pods/one_chip.py\n\n"
    page += "\n".join([*lines, "", *lists])
    (out / "README.md").write_text(page)
    return page


def main() -> None:
    """Measure, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--rows", type=int, default=4, help="sequences a step")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = [measure(v, args.rows, args.steps, args.set) for v in args.variants]
    kind = jax.devices()[0].device_kind
    found = {
        "device": kind,
        "versions": {n: importlib.metadata.version(n) for n in ("jax", "jaxlib")},
        "runs": runs,
    }
    name = re.sub(r"\W+", "_", kind).strip("_").lower()
    (args.out / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    print(write_page(args.out))


if __name__ == "__main__":
    main()
