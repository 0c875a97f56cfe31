"""A page with tables and curves of what run.py measured.

    python experiments/class_incremental/report.py runs/class_incremental \\
        --out experiments/results/class_incremental

Writes README.md, a plot for each dataset, and runs.json with all figures, those of tuning
included. Trials say on the page what they were made with; those of the older form
(tuned/ARM.json) do not say with what base. What a person made of the figures is taken from
findings.md in OUT, if it is there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from class_incremental.arms import ARMS
from class_incremental.tuning_page import tuning
from matplotlib.figure import Figure

from hope_jax.sweeps.report import spread

OUT = Path(__file__).resolve().parents[1] / "results" / "class_incremental"
COLORS = {
    "hope": "C0",
    "hope labels": "C4",
    "in": "C7",
    "fine": "C1",
    "ewc": "C2",
    "joint": "k",
}
STYLES = ("-", "--", ":", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))

Runs = list[dict[str, Any]]


def report(folder: Path, out: Path) -> str:
    """Write the page, the plots and the figures; returns the page.

    Raises:
      ValueError: nothing was measured.
    """
    runs = [json.loads(file.read_text()) for file in sorted(folder.glob("*-*-*.json"))]
    if not runs:
        raise ValueError(f"nothing was measured yet in {folder}; see run.py --help")
    files = sorted((folder / "tuned").glob("*.json"))
    tuned = [one for file in files for one in json.loads(file.read_text())]
    out.mkdir(parents=True, exist_ok=True)
    findings = out / "findings.md"
    lines = [
        "# Class-incremental learning",
        "",
        "Classes come in tasks, one after the other; after each task all classes so far are "
        "asked, and a query does not tell its task (section 9.1 of the paper, which has Llama "
        "models of 3 and 8 billion parameters and figures without numbers; nothing here can be "
        "compared with those). One small base model for all arms and seeds; a seed draws the "
        "order of tasks, the examples and the queries.",
        "",
        *([findings.read_text()] if findings.exists() else []),
    ]
    for dataset in dict.fromkeys(run["dataset"] for run in runs):
        here = [run for run in runs if run["dataset"] == dataset]
        lines += _dataset(dataset, here)
        _plot(here, out / f"{dataset}.png")
    lines += tuning(tuned, runs) + _origin(runs)
    page = "\n".join(lines) + "\n"
    (out / "README.md").write_text(page)
    _keep(out / "runs.json", runs, tuned)
    return page


def by_arm(runs: Runs) -> dict[str, Runs]:
    """Runs of each arm, arms in their usual order."""
    return {arm: found for arm in ARMS if (found := [run for run in runs if run["arm"] == arm])}


def _dataset(dataset: str, runs: Runs) -> list[str]:
    first = runs[0]
    classes, queries = sum(first["classes"]), first["queries"]
    worst = 100 * max(math.sqrt(r["final"] * (1 - r["final"]) / r["queries"]) for r in runs)
    lines = [
        f"## {dataset}",
        "",
        f"{len(first['classes'])} tasks, {classes} classes, {first['per_class']} examples of "
        f"each to learn from, {queries:,} queries at the end; chance is "
        f"{100 / classes:.2f} %. Percent, mean over seeds and the range; the standard error of "
        f"a single accuracy is {worst:.1f} at most. *Average*: the mean over the tasks of the "
        "accuracy over all classes so far. *Forgetting* is by how much the accuracy on a task "
        "fell from its best to the end, mean over all tasks but the last; more classes to "
        "choose from count in it.",
        "",
        "| arm | | final accuracy | average | forgetting | seeds | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, found in by_arm(runs).items():
        cells = [_percent(found, key) for key in ("final", "average", "forgetting")]
        seconds = statistics.fmean(sum(run["seconds"].values()) for run in found)
        seeds = ", ".join(str(run["seed"]) for run in found)
        text = " | ".join([arm, ARMS[arm].help, *cells, seeds, f"{seconds:.0f}"])
        lines.append(f"| {text} |")
    return [
        *lines,
        "",
        "Seconds are for learning and answering on one core of a machine that was shared, "
        "compiling included; they say little.",
        "",
        f"![accuracy over all classes so far]({dataset}.png)",
        "",
    ]


def _percent(runs: Runs, key: str) -> str:
    values = [100 * run[key] for run in runs if run[key] is not None]
    return spread(values, 1) if values else ""


def _plot(runs: Runs, path: Path) -> None:
    """Accuracy over all classes so far, a line per arm and a band from lowest to highest."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    used: dict[str, int] = {}
    for arm, found in by_arm(runs).items():
        family = arm.split("_")[0] + (" labels" if "labels" in arm else "")
        style = STYLES[used.setdefault(family, 0) % len(STYLES)]
        used[family] += 1
        curves = [[None if a is None else 100 * a for a in run["accuracy"]] for run in found]
        tasks = [n for n, values in enumerate(zip(*curves, strict=True)) if None not in values]
        at = lambda n, curves=curves: [curve[n] for curve in curves]
        places = [n + 1 for n in tasks]
        middle = [statistics.fmean(at(n)) for n in tasks]
        marker = "s" if len(tasks) < len(curves[0]) else "o"
        axes.plot(
            places, middle, color=COLORS[family], linestyle=style, marker=marker, markersize=4,
            label=arm,
        )  # fmt: skip
        low, high = [min(at(n)) for n in tasks], [max(at(n)) for n in tasks]
        axes.fill_between(places, low, high, color=COLORS[family], alpha=0.1, linewidth=0)
    counts = runs[0]["classes"]
    chance = [100 / sum(counts[: n + 1]) for n in range(len(counts))]
    axes.plot(range(1, len(counts) + 1), chance, color="C3", linewidth=1, label="chance")
    axes.set(
        xlabel=f"tasks learned ({counts[0]} classes each)",
        ylabel="accuracy over all classes so far, %",
        xticks=range(1, len(counts) + 1),
    )
    axes.set_yscale("symlog", linthresh=1)  # what is near chance is to be told apart
    axes.set_ylim(0, 100)
    ticks = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)
    axes.set_yticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def _origin(runs: Runs) -> list[str]:
    first = runs[0]
    made = first["device"] | first["versions"]
    return [
        "## How",
        "",
        f"Base: {first['base']}, {first['parameters']:,} parameters, {first['base_steps']} "
        "steps (experiments/class_incremental/base.py). Commands: "
        "`python experiments/class_incremental/run.py --help`. "
        + ", ".join(f"{k} {v}" for k, v in made.items()),
    ]


def _keep(file: Path, runs: Runs, tuned: Runs) -> None:
    """All figures, a run a line; shares to four digits."""
    rows = [*runs, *({"tuning": True, **one} for one in tuned)]
    same = {key: runs[0][key] for key in ("device", "versions")}
    short = [
        {k: _rounded(v) for k, v in row.items() if k not in same or v != same[k]}
        for row in rows
    ]
    short[0] |= same
    file.write_text("[\n" + ",\n".join(json.dumps(row) for row in short) + "\n]\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    if isinstance(value, dict) and "learning" in value:
        return {k: round(v, 1) for k, v in value.items()}
    return value


def main() -> None:
    """Report on a folder of measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder that run.py wrote (its --out)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder of the page ({OUT})")
    args = parser.parse_args()
    try:
        print(report(args.runs, args.out))
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
