"""Loss against position, far beyond the length that models were trained with.

    python experiments/length/positions.py --runs runs/length

For every finished run below RUNS (see experiments/length/models.py): its held-out text in
windows of 32 times the training length, read without forgetting inside of them; the mean loss
of bins of positions, and the same with memory writes off. Writes a table, a plot and all
figures to experiments/results/length. A measured run is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import re
import statistics
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.progress import track

import hope_jax
from hope_jax.checkpoint.whole_file import write_whole
from hope_jax.data import open_dataset
from hope_jax.sweeps import find_runs
from hope_jax.sweeps.collect import without_copies
from hope_jax.sweeps.report import spread
from hope_jax.training.evaluate import Evaluator
from hope_jax.training.identity import device, versions

TIMES = 32
OUT = Path(__file__).resolve().parents[1] / "results" / "length"


def measure(run: Path, times: int, windows: int) -> dict:
    """Losses by bin of positions of one run."""
    loaded = hope_jax.load(run)
    trained = loaded.config.data.length
    data = dataclasses.replace(
        loaded.config.data, batch=1, length=times * trained, reset="never"
    )
    held_out = open_dataset(data, loaded.tokenizer, split="validation")
    evaluator, found = Evaluator(loaded.model), {}
    for name, writes in (("on", True), ("off", False)):
        if found and not found["write_events"]:
            continue
        read = evaluator(loaded.params, held_out, windows, writes=writes)
        if writes:
            found |= {"write_events": read.write_events, "tokens": read.tokens}
        losses_T = np.array(read.loss_by_position)
        edges = bins(trained, times)
        found[name] = [float(losses_T[a:b].mean()) for a, b in itertools.pairwise(edges)]
    kind = getattr(loaded.config.model.mixer, "type", "")
    return {
        "run": run.name,
        "name": loaded.config.name,
        "mixer": kind,
        "seed": loaded.config.seed,
        "trained": trained,
        "edges": bins(trained, times),
        **found,
        "versions": versions(),
        "device": device(),
    }


def bins(trained: int, times: int) -> list[int]:
    """Edges of positions: quarters of the training length, then doublings of it."""
    edges = [0, trained // 4, trained // 2, trained]
    while edges[-1] < times * trained:
        edges.append(2 * edges[-1])
    return edges


def report(found: list[dict]) -> str:
    """A page with a table and a plot for each training length; returns the page."""
    page = ["# Loss against position\n"]
    findings = OUT / "findings.md"  # what a person made of the figures
    page += [findings.read_text()] if findings.exists() else []
    for trained in sorted({one["trained"] for one in found}):
        page += of_length([one for one in found if one["trained"] == trained])
    first = found[0]
    made = first["device"] | first["versions"]
    page += [
        "    python experiments/length/positions.py --runs runs/length\n",
        ", ".join(f"{k} {v}" for k, v in made.items()),
        "",
    ]
    text = "\n".join(page)
    (OUT / "README.md").write_text(text)
    return text


def of_length(found: list[dict]) -> list[str]:
    """Lines about models that were trained with one length; writes their plot."""
    by_name: dict[str, list[dict]] = {}
    for one in found:
        by_name.setdefault(re.sub(r"-seed_\d+$", "", one["name"]), []).append(one)
    edges, trained = found[0]["edges"], found[0]["trained"]
    heads = [f"{a + 1} to {b}" for a, b in itertools.pairwise(edges)]
    mean = lambda runs, key, i: statistics.fmean(run[key][i] for run in runs)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    lines = [["model", *heads, "seeds"], ["---"] + ["---:"] * (len(heads) + 1)]
    order = sorted(by_name.items(), key=lambda item: mean(item[1], "on", -1))
    middle = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    for number, (name, runs) in enumerate(order):
        for key, label, style in (("on", name, "o-"), ("off", f"{name}, no writes", "x:")):
            if any(key not in run for run in runs):
                continue
            means = [mean(runs, key, i) for i in range(len(heads))]
            if key == "on" or name == "hope":
                axes.plot(middle, means, style, color=f"C{number}", label=label, markersize=4)
            cells = [spread([run[key][i] for run in runs]) for i in range(len(heads))]
            lines.append([label, *cells, str(len(runs))])
    axes.axvline(trained, color="grey", linewidth=1, linestyle="--")
    axes.set(
        xlabel=f"position in the text, tokens (trained with {trained})",
        ylabel="held-out loss, nats per token",
        xscale="log",
    )
    lowest = min(mean(runs, "on", i) for _, runs in order for i in range(len(heads)))
    axes.set_ylim(lowest - 0.1, lowest + 1.6)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(OUT / f"positions_{trained}.png", dpi=110)
    return [
        f"Trained with {trained} tokens, read with {edges[-1]:,}: held-out loss in nats per "
        f"token by position, mean over seeds and the range; {found[0]['tokens']:,} tokens a "
        "run.\n",
        *(f"| {' | '.join(cells)} |" for cells in lines),
        f"\n![loss by position](positions_{trained}.png)\n",
    ]


def main() -> None:
    """Measure what is not measured yet, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/length"))
    parser.add_argument("--windows", type=int, default=16, help="windows of held-out text")
    parser.add_argument("--times", type=int, default=TIMES, help="of the training length")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / "positions.json"
    found = json.loads(file.read_text()) if file.exists() else []
    known = {one["run"] for one in found}
    for run in track(without_copies(find_runs(args.runs))[0], "measure"):
        if run.path.name in known:
            continue
        found.append(measure(run.path, args.times, args.windows))
        write_whole(file, "[\n" + ",\n".join(json.dumps(one) for one in found) + "\n]\n")
    print(report(found))


if __name__ == "__main__":
    main()
