"""What levels cost when a pretrained model reads: time and memory for 0, 1, 2 and 3 of them.

    hope convert MODEL.gguf models/smollm2
    python experiments/pretrained/cost.py models/smollm2

The levels are MLPs of the last blocks (ad-hoc level stacking). All streams take turns in one
process, so that a noisy machine is noisy for all of them; what is compiled is compiled before.
Results go to experiments/results/pretrained/cost.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import track

import hope_jax
from hope_jax.data.corpus import documents
from hope_jax.streams import Stream
from hope_jax.training.identity import device, versions

OUT = Path(__file__).resolve().parents[1] / "results" / "pretrained"
LEVELS = {"none": (), "64": (64,), "64, 128": (64, 128), "64, 128, 512": (64, 128, 512)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="FOLDER", help="what hope convert wrote")
    parser.add_argument(
        "--blocks", type=int, default=8, help="last blocks that learn (default: %(default)s)"
    )
    parser.add_argument(
        "--rule", default="adam", help="sgd, momentum or adam (default: %(default)s)"
    )
    parser.add_argument(
        "--tokens", type=int, default=512, help="read each time (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    args = parser.parse_args()
    base = hope_jax.load(args.model)
    text = documents("validation")[0].data[: 16 * args.tokens]  # a play; noise is not learned
    ids_T = base.tokenizer.encode(text)[: args.tokens]
    how = {"blocks": args.blocks, "rule": args.rule, "lr": 1e-3}
    streams = {
        name: Stream.open(base, levels=levels, reservoir=0, **(how if levels else {}))
        for name, levels in LEVELS.items()
    }
    seconds = {name: [] for name in streams}
    console = Console(stderr=True)
    for turn in track(range(args.rounds + 1), "reading", console=console):
        for name, stream in streams.items():
            fresh = stream.copy()
            began = time.perf_counter()
            fresh.read_ids(ids_T)
            jax.block_until_ready(fresh.state)
            if turn:  # the first one compiles
                seconds[name].append(time.perf_counter() - began)
    rows = [
        {
            "levels": name,
            "ms_per_token": [1e3 * s / args.tokens for s in seconds[name]],
            "fast_weights_bytes": _bytes(stream.fast_weights),
            "optimizer_bytes": _bytes(stream.state.state.levels) if stream.learns else 0,
        }
        for name, stream in streams.items()
    ]
    given = {name: getattr(args, name) for name in ("blocks", "rule", "tokens", "rounds")}
    facts = {"model": base.config.name, **given, "device": device(), **versions()}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "cost.json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=2) + "\n")
    (OUT / "cost.md").write_text(_page(facts, rows))
    print((OUT / "cost.md").read_text())


def _bytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _page(facts: dict, rows: list[dict]) -> str:
    frozen = statistics.median(rows[0]["ms_per_token"])
    lines = [
        f"{facts['model']}, {facts['tokens']} tokens read by one stream, the last "
        f"{facts['blocks']} blocks learn, rule {facts['rule']}; median of {facts['rounds']} "
        "readings, range in brackets.",
        "",
        "| tokens per update | ms per token | times the frozen model | fast weights | "
        "optimizers, with sums of gradients |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        times = row["ms_per_token"]
        middle = statistics.median(times)
        lines.append(
            f"| {row['levels']} | {middle:.1f} ({min(times):.1f} to {max(times):.1f}) | "
            f"{middle / frozen:.2f} | {row['fast_weights_bytes'] / 1e6:.0f} MB | "
            f"{row['optimizer_bytes'] / 1e6:.0f} MB |"
        )
    on = facts["device"]
    lines += [
        "",
        f"`python experiments/pretrained/cost.py models/smollm2`; {on['kind']}, "
        f"{on['cpus']} processors, {on['machine']}, jax {facts['jax']}, Python "
        f"{facts['python']}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
