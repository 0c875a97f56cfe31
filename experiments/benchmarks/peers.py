"""Training speed of this package's models beside public PyTorch ones, measured in one go.

    python experiments/benchmarks/peers.py --out runs/peers
    python experiments/benchmarks/peers.py --out runs/peers_gated_delta_net \\
        --models gated_delta_net delta_net gated-delta-net transformer torch-transformer
    python experiments/benchmarks/peers.py --out runs/peers_ttt --ttt FOLDER \\
        --models ttt_linear ttt-linear ttt-linear-64 ttt_mlp ttt-mlp ttt-mlp-64

Makes a throw-away environment, installs PyTorch and packages from the package index, and lets
their models and those of `hope bench` take turns with training steps of the same width,
depth, heads, length and batch. What is compared is tokens per CPU-second, which other
programs on the machine disturb least. The last column says how many times those of a peer
our models of the same kind reach.

  titans-pytorch          the package's single memory in a stack; -refresh takes gradients at
                          weights renewed every second chunk
  nested-learning         the package's self-modifying HOPE, trained online, at batch 1: it
                          shares its fast state across a batch
  gated-delta-net         the Qwen3-Next layer of transformers, with our sizes of heads
  torch-transformer       rotary positions, fused attention and SwiGLU, of PyTorch alone
  ttt-linear, ttt-mlp     the layers of github.com/test-time-training/ttt-lm-pytorch, which
                          its authors wrote to be read rather than to be fast. It is no
                          package: --ttt names a checkout (measured at commit cd831db). The
                          mini-batch is 16 as published and as ours; with -64 it is 64, which
                          computes something else

Time: about 15 minutes on 2 CPU cores for the first line, and 2 GB of disk while it runs. All
models named are in memory together.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import tempfile
import venv
from pathlib import Path

from contenders import SHAPES, Ours, Peer
from peer_models import PEERS
from rich import box
from rich.console import Console
from rich.table import Table

from hope_jax.benchmark import Settings
from hope_jax.benchmark.cases import MODELS
from hope_jax.benchmark.results import machine

DEFAULT = (
    *("hope", "hope_momentum", "hope_attention", "transformer"),
    *("titans-pytorch", "titans-pytorch-refresh", "nested-learning"),
)
# nested-learning asks for an older huggingface_hub than transformers, which it reads data
# with; nothing here does, so that transformers comes last and has its way.
PACKAGES = (("titans-pytorch==0.5.5", "nested-learning==0.2.0"), ("transformers==5.24.0",))


def make_environment(folder: Path, torch: str, say) -> Path:
    """Python of an environment with PyTorch and the packages; made when it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"installing PyTorch {torch} and the packages into {folder}")
        venv.create(folder, with_pip=True)
        for packages in ((), *PACKAGES):
            pip = [python, "-m", "pip", "install", "--quiet", f"torch=={torch}"]
            subprocess.run([*pip, *packages], check=True)
    return python


def measure(args: argparse.Namespace, python: Path | None, say) -> tuple[list[dict], dict]:
    """Let all of them take turns.

    Returns:
      One row per model and length, and the versions of what the peers are made of.
    """
    rows, versions = [], {}
    for length in args.lengths:
        shapes = {name: getattr(args, name) for name in SHAPES}
        settings = Settings(lengths=(length,), contexts=(), **shapes)
        contenders = {}
        for name in args.models:
            say(f"T={length}: starting {name}")
            if name in PEERS:
                contenders[name] = Peer(name, python, args.ttt, settings, length)
            else:
                contenders[name] = Ours(name, settings, length)
            versions |= contenders[name].versions
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
    return rows, versions


def compare(rows: list[dict]) -> None:
    """Add to each peer's row `ours`: by model, how many times its tokens per CPU-second."""
    speeds = {(row["model"], row["length"]): row["tokens_per_cpu_second"] for row in rows}
    for row in rows:
        if row["model"] in PEERS:
            row["ours"] = {
                name: speeds[name, row["length"]] / row["tokens_per_cpu_second"]
                for name in PEERS[row["model"]].ours
                if (name, row["length"]) in speeds
            }


def print_table(rows: list[dict], console: Console) -> None:
    """Tokens per CPU-second, and how many times those of each peer ours of its kind reach."""
    # as narrow as it goes: names are long
    table = Table(title="training", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("T", "model", "batch", "params", "tok/CPU-s", "ours of its kind"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["length"]),
            row["model"],
            str(row["batch"]),
            f"{row['params'] / 1e6:.2f} M",
            f"{row['tokens_per_cpu_second']:,.0f}",
            "\n".join(f"{name} {times:.2f} x" for name, times in row.get("ours", {}).items()),
        )
    console.print(table)


def arguments() -> argparse.Namespace:
    """Of the command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), metavar="DIR")
    parser.add_argument("--lengths", nargs="+", type=int, default=[512], metavar="T")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    for name in SHAPES:
        parser.add_argument(f"--{name}", type=int, default=defaults[name], metavar="N")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=(*MODELS, *PEERS),
        default=DEFAULT,
        metavar="NAME",
        help=f"of ours {', '.join(sorted(MODELS))}; of others {', '.join(sorted(PEERS))} "
        f"(default: {' '.join(DEFAULT)})",
    )
    parser.add_argument("--torch", default="2.13.0", metavar="VERSION", help="of PyTorch")
    parser.add_argument(
        "--venv", type=Path, metavar="DIR", help="keep the environment there, or use it again"
    )
    parser.add_argument(
        "--ttt",
        type=Path,
        metavar="FOLDER",
        help="checkout of github.com/test-time-training/ttt-lm-pytorch, for ttt-linear and "
        "ttt-mlp",
    )
    args = parser.parse_args()
    for name in args.models:
        if name in PEERS and PEERS[name].checkout and args.ttt is None:
            parser.error(f"{name} needs --ttt, the folder of a checkout with ttt.py")
    if args.ttt is not None:
        args.ttt = args.ttt.absolute()
        if not (args.ttt / "ttt.py").is_file():
            parser.error(f"there is no ttt.py in {args.ttt}; name a checkout of the repository")
    return args


def main() -> None:
    """Install, measure, write, print."""
    args = arguments()
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        python = None
        if any(name in PEERS for name in args.models):
            folder = (args.venv or Path(scratch) / "venv").absolute()
            python = make_environment(folder, args.torch, console.print)
        rows, versions = measure(args, python, console.print)
    compare(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(args, name) for name in SHAPES}
    facts = {"machine": {**machine(), **versions}, "settings": settings, "training": rows}
    path = args.out / "peers.json"
    path.write_text(json.dumps(facts, indent=1) + "\n")
    print_table(rows, console)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
