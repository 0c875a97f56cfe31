"""Where a training step spends its time on a CPU, and how far that is from the floor.

    taskset -c 0 python experiments/benchmarks/profile_step.py --model hope --length 512

Traces one step of a model of `hope bench` on one processor and adds up what each compiled
operation took: products of matrices and everything else, by source line. Beside it stand the
floor, all products at the speed that this machine reaches on a batch of 64 x 64 products, and
the speed of the element-wise work that fills the rest. Writes DIR/profile.json.

Events that contain others (branches, loops) are left out, so nothing counts twice; tracing
itself makes a step about a tenth slower.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from hope_jax.benchmark import Settings
from hope_jax.benchmark.results import machine
from hope_jax.benchmark.training import TrainCase

CONTAINERS = re.compile(r"(cond|while|call|conditional)[.\d]*")


def traced(case: TrainCase) -> dict[str, float]:
    """Seconds of every compiled operation in one step, by its name."""
    case.measure()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            case.measure()
        (file,) = Path(folder).glob("**/*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(file))
    seconds: dict[str, float] = collections.defaultdict(float)
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                seconds[event.name] += event.duration_ns / 1e9
    return seconds


class Program:
    """The text of a compiled step: which line each operation comes from, and its kind."""

    def __init__(self, text: str):
        self._text = text
        bodies = re.split(r"\n(?=%|ENTRY)", text)
        self._with_dots = {
            body.split(" ", 1)[0].lstrip("%") for body in bodies if re.search(r"\bdot\(", body)
        }
        files = dict(re.findall(r'^(\d+) "(.*)"$', self._section("FileNames"), re.M))
        places = self._records("FileLocations")
        self._frames = self._records("StackFrames")
        self._lines = {
            number: (files[place["file_name_id"]], place["line"])
            for number, place in places.items()
        }
        self.operations = {}
        pattern = r"%([\w.\-]+) = .*?metadata=\{op_name=\"[^\"]*\"(?: stack_frame_id=(\d+))?"
        for found in re.finditer(pattern, text):
            self.operations[found[1]] = (self._place(found[2]), self._is_dot(found[0]))

    def _section(self, name: str) -> str:
        found = re.search(rf"\n{name}\n(.*?)\n\n", self._text, re.S)
        return found[1] if found else ""

    def _records(self, name: str) -> dict[str, dict[str, str]]:
        rows = re.findall(r"^(\d+) \{(.*)\}$", self._section(name), re.M)
        return {number: dict(x.split("=") for x in fields.split()) for number, fields in rows}

    def _place(self, frame: str | None) -> str:
        """The innermost line of this package."""
        while frame in self._frames:
            file, line = self._lines[self._frames[frame]["file_location_id"]]
            if "/hope_jax/" in file:
                return f"hope_jax/{file.rsplit('/hope_jax/', 1)[1]}:{line}"
            parent = self._frames[frame].get("parent_frame_id")
            frame = None if parent == frame else parent
        return "elsewhere"

    def _is_dot(self, instruction: str) -> bool:
        called = re.search(r"calls=%([\w.\-]+)", instruction)
        return " dot(" in instruction or (called is not None and called[1] in self._with_dots)


def seconds_of(function, *arguments, trials: int = 5, repeats: int = 50) -> float:
    """Best time of one call."""
    compiled = jax.jit(function)
    compiled(*arguments).block_until_ready()
    times = []
    for _ in range(trials):
        start = time.perf_counter()
        for _ in range(repeats):
            result = compiled(*arguments)
        result.block_until_ready()
        times.append((time.perf_counter() - start) / repeats)
    return min(times)


def speeds() -> dict[str, float]:
    """Billions of operations or elements per second of this machine."""
    key = jax.random.key(0)
    x, y = jax.random.normal(key, (2, 1024, 1024))
    heads = jax.random.normal(key, (16, 64, 64))
    wide = jax.random.normal(key, (16, 64, 224))
    return {
        "large matrix product, GFLOP/s": 2 * 1024**3 / seconds_of(jnp.matmul, x, y) / 1e9,
        "16 products of 64 x 64, GFLOP/s": 16
        * 2
        * 64**3
        / seconds_of(jnp.matmul, heads, heads)
        / 1e9,
        "multiply and add, 1e9 elements/s": wide.size
        / seconds_of(lambda x: x * 1.5 + 0.3, wide)
        / 1e9,
        "gelu, 1e9 elements/s": wide.size / seconds_of(jax.nn.gelu, wide) / 1e9,
    }


def main() -> None:
    """Trace, add up, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="hope")
    parser.add_argument("--length", type=int, default=512, metavar="T")
    parser.add_argument("--lines", type=int, default=25, metavar="N", help="lines to print")
    parser.add_argument("--out", type=Path, default=Path("runs/profile"), metavar="DIR")
    args = parser.parse_args()
    console = Console()
    settings = Settings(lengths=(args.length,), contexts=())
    case = TrainCase(args.model, args.length, settings)
    program = Program(case.compiled_text())
    seconds = traced(case)

    kinds: dict[str, float] = collections.Counter()
    lines: dict[str, float] = collections.Counter()
    for name, spent in seconds.items():
        if name in program.operations and not CONTAINERS.match(name):
            place, dot = program.operations[name]
            kinds["matrix products" if dot else "everything else"] += spent
            lines[place] += spent
    tokens = settings.batch * args.length
    rates = speeds()
    flops = tokens * case.result.flops_per_token
    rate = rates["16 products of 64 x 64, GFLOP/s"] * 1e9
    facts = {
        "machine": machine(),
        "model": args.model,
        "length": args.length,
        "batch": settings.batch,
        "speeds": rates,
        "step_seconds_untraced": case.result.spent[0].cpu,
        "traced_seconds": dict(kinds),
        "model_flops": flops,
        "floor_seconds": flops / rate,
        "lines": dict(sorted(lines.items(), key=lambda item: -item[1])),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.model}_{args.length}.json"
    path.write_text(json.dumps(facts, indent=1) + "\n")

    table = Table(title=f"{args.model}, {tokens:,} tokens")
    table.add_column("where")
    table.add_column("ms", justify="right")
    for place, spent in list(facts["lines"].items())[: args.lines]:
        table.add_row(place, f"{1e3 * spent:.1f}")
    console.print(table)
    for name, value in rates.items():
        console.print(f"{name}: {value:.1f}")
    for name, value in kinds.items():
        console.print(f"{name}: {1e3 * value:.0f} ms traced")
    console.print(
        f"step: {1e3 * facts['step_seconds_untraced']:.0f} ms of CPU without tracing; floor of "
        f"its {flops / 1e9:.1f} GFLOP: {1e3 * facts['floor_seconds']:.0f} ms"
    )
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
