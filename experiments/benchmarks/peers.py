"""Training speed of HOPE beside two PyTorch packages, measured in one go.

    python experiments/benchmarks/peers.py --out runs/peers

Makes a throw-away environment, installs PyTorch and the packages `titans-pytorch` (its
single-memory NeuralMemory in a stack with feed-forward layers) and `nested-learning` (its
self-modifying HOPE, trained online) from the package index, and lets them and the models of
`hope bench` take turns with training steps of the same width, depth, chunk and length. What
is compared is tokens per CPU-second, which other programs on the machine disturb least.

Time: about 15 minutes on 2 CPU cores, and 2 GB of disk while it runs. nested-learning shares
its fast state across a batch, so that it is measured at batch 1, as it is meant to be used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hope_jax.benchmark import Settings
from hope_jax.benchmark.results import machine
from hope_jax.benchmark.training import TrainCase

WORKER = Path(__file__).with_name("peer_worker.py")
OURS = ("hope", "hope_momentum", "hope_attention", "transformer")
PEERS = {"titans": None, "titans-refresh": None, "nested-learning": 1}  # batch, if fixed


class Ours:
    """A model of this package."""

    def __init__(self, name: str, settings: Settings, length: int):
        self._case = TrainCase(name, length, settings)
        self.params = self._case.result.params
        self.tokens = settings.batch * length
        self.batch = settings.batch

    def step(self) -> dict[str, float]:
        """One training step."""
        self._case.measure()
        spent = self._case.result.spent[-1]
        return {"wall": spent.wall, "cpu": spent.cpu}

    def close(self) -> None:
        """Nothing to end."""


class Peer:
    """A package in its own process."""

    def __init__(self, name: str, python: Path, settings: Settings, length: int):
        self.batch = PEERS[name] or settings.batch
        shapes = {n: getattr(settings, n) for n in ("dim", "depth", "heads", "chunk")}
        shapes |= {"batch": self.batch, "length": length}
        options = [item for n, value in shapes.items() for item in (f"--{n}", str(value))]
        self._process = subprocess.Popen(
            [python, WORKER, name, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.params = self._answer()["params"]
        self.tokens = self.batch * length
        self.step()  # warm

    def step(self) -> dict[str, float]:
        """One training step."""
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> dict[str, float]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended with status {self._process.wait()}")
        return json.loads(line)


def make_environment(folder: Path, torch: str, say) -> Path:
    """Python of an environment with PyTorch and the packages; made when it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"installing PyTorch {torch} and the packages into {folder}")
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"torch=={torch}"], check=True)
        subprocess.run(
            [*pip, f"torch=={torch}", "titans-pytorch", "nested-learning"], check=True
        )
    return python


def installed(python: Path) -> dict[str, str]:
    """Versions of the packages that are compared."""
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"],
        check=True,
        capture_output=True,
        text=True,
    )
    wanted = ("torch", "titans-pytorch", "nested-learning")
    return {p["name"]: p["version"] for p in json.loads(listed.stdout) if p["name"] in wanted}


def compare(args: argparse.Namespace, python: Path, say) -> list[dict]:
    """Let all of them take turns; returns one row per model and length."""
    rows = []
    for length in args.lengths:
        settings = Settings(batch=args.batch, lengths=(length,), contexts=())
        contenders = {}
        for name in args.models:
            say(f"T={length}: starting {name}")
            if name in OURS:
                contenders[name] = Ours(name, settings, length)
            else:
                contenders[name] = Peer(name, python, settings, length)
        spent = {name: [] for name in contenders}
        for number in range(args.rounds):
            for name, contender in contenders.items():
                spent[name].append(contender.step())
            say(f"T={length}: round {number + 1} of {args.rounds}")
        for name, contender in contenders.items():
            contender.close()
            rows.append(
                {
                    "model": name,
                    "length": length,
                    "batch": contender.batch,
                    "params": contender.params,
                    "spent": spent[name],
                    **{
                        f"tokens_per_{label}": contender.tokens
                        / statistics.median(s[unit] for s in spent[name])
                        for label, unit in (("cpu_second", "cpu"), ("second", "wall"))
                    },
                }
            )
    return rows


def print_table(rows: list[dict], console: Console) -> None:
    """Tokens per CPU-second, and how many times those of each peer HOPE reaches."""
    table = Table(title="training")
    for column in ("T", "model", "batch", "params", "tok/CPU-s", "tok/s", "hope is"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        hope = [r for r in rows if (r["model"], r["length"]) == ("hope", row["length"])]
        times = hope[0]["tokens_per_cpu_second"] / row["tokens_per_cpu_second"] if hope else 0
        table.add_row(
            str(row["length"]),
            row["model"],
            str(row["batch"]),
            f"{row['params'] / 1e6:.2f} M",
            f"{row['tokens_per_cpu_second']:,.0f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{times:.2f} x" if hope else "",
        )
    console.print(table)


def main() -> None:
    """Install, measure, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), metavar="DIR")
    parser.add_argument("--lengths", nargs="+", type=int, default=[512], metavar="T")
    parser.add_argument("--batch", type=int, default=4, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument(
        "--models", nargs="+", choices=(*OURS, *PEERS), default=[*OURS, *PEERS], metavar="NAME"
    )
    parser.add_argument("--torch", default="2.13.0", metavar="VERSION", help="of PyTorch")
    parser.add_argument(
        "--venv", type=Path, metavar="DIR", help="keep the environment there, or use it again"
    )
    args = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.venv or Path(scratch) / "venv").absolute()
        python = Path(sys.executable)
        if any(name in PEERS for name in args.models):
            python = make_environment(folder, args.torch, console.print)
        rows = compare(args, python, console.print)
        versions = installed(python)
    args.out.mkdir(parents=True, exist_ok=True)
    facts = {**machine(), **versions}
    path = args.out / "peers.json"
    path.write_text(json.dumps({"machine": facts, "training": rows}, indent=1) + "\n")
    print_table(rows, console)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
