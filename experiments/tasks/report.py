"""A table of models by tasks, from the runs of a sweep over tasks.

    python experiments/tasks/report.py runs/formal --out experiments/results/formal_languages
    python experiments/tasks/report.py runs/mad --out experiments/results/mad
    python experiments/tasks/report.py runs/needles --out experiments/results/needles

Every model stands at the learning rate with the fewest wrong answers, mean over seeds, and the
lowest and highest in brackets where they differ; after a slash the same of the tests (such as
longer texts). A cell of fewer runs than others says how many. Configurations of one mixer are
rows of their own, named by the fields in which they differ; what belongs to a task (`data`, the
vocabulary) tells them apart only where it differs within the task. `runs.json` beside the page
has all figures of all runs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from hope_jax.data.tasks.languages import LANGUAGES
from hope_jax.sweeps.collect import SOLVED, Run, differing, find_runs, without_copies
from hope_jax.sweeps.report import (
    Group,
    at_best,
    group,
    kept,
    origin,
    short_names,
    show,
    spread,
)

NAMES = {
    "self_modifying": "HOPE",
    "attention": "Transformer++",
    "linear_attention": "linear attention",
    "delta_net": "DeltaNet",
    "gated_delta_net": "Gated DeltaNet",
    "retnet": "RetNet",
    "comba": "Comba",
    "rwkv7": "RWKV-7",
    "titans": "Titans",
    "ttt_linear": "TTT-Linear",
    "dla": "deep linear attention",
    "lstm": "LSTM",
    "srwm": "SRWM",
}
RATE = "optim.lr"
# Beside `data`, what a recipe sets by the task.
OF_TASK = {"model.vocab_size", "model.reconstruct", SOLVED}


class Row(NamedTuple):
    """A row: what it is called, and what it is, which a name may round."""

    name: str
    values: str


Cells = dict[tuple[Row, str], Group]


def task_of(run: Run) -> str:
    """What a column is called."""
    fields = run.fields
    kind = fields["data.task.type"]
    if kind == "formal":
        return fields["data.task.language"]
    if kind == "recall" and fields["data.task.noise"]:
        return "noisy recall"
    if kind == "recall" and fields["data.task.motif"] > 1:
        return "fuzzy recall"
    if kind == "niah":
        return f"needle, {fields['data.task.form'].replace('_', ' ')}"
    return kind


def told_by(runs: Sequence[Run], fields: Sequence[str]) -> dict[str, list[str]]:
    """By mixer, those of `fields` that tell its rows apart."""
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        kinds.setdefault(run.fields["model.mixer.type"], []).append(run)
    return {
        kind: [f for f in fields if f != RATE and _differ(same, f)]
        for kind, same in kinds.items()
    }


def _differ(runs: Sequence[Run], field: str) -> bool:
    of_task = field in OF_TASK or field.startswith("data.")
    values: dict[str, set[str]] = {}
    for run in runs:
        place = task_of(run) if of_task else ""
        values.setdefault(place, set()).add(repr(run.fields.get(field)))
    return any(len(different) > 1 for different in values.values())


def row_of(run: Run, told: Mapping[str, Sequence[str]]) -> Row:
    """The row of a run; `told` is of `told_by`."""
    kind = run.fields["model.mixer.type"]
    names = short_names(told[kind])
    values = {names[f]: run.fields.get(f) for f in told[kind]}
    parts = ", ".join(f"{name} {show(v)}" for name, v in values.items() if v is not None)
    name = NAMES.get(kind, kind.replace("_", " "))
    return Row(f"{name} ({parts})" if parts else name, repr((kind, values)))


def page(folder: Path, out: Path) -> str:
    """Write `report.md`, `runs.json` and a plot; returns the page.

    Raises:
      ValueError: there is no finished run, or one of text.
    """
    runs, _ = without_copies(find_runs(folder))
    for run in runs:
        if run.fields.get("data.task.type") is None:
            raise ValueError(f"{run.path} is a run on text; this page is of tasks")
    fields = differing(runs)
    groups = group(runs, fields)
    best = at_best(groups, RATE) if RATE in fields else groups
    told = told_by(runs, fields)
    cells: Cells = {(row_of(one.runs[0], told), task_of(one.runs[0])): one for one in best}
    tasks = list(dict.fromkeys(task_of(run) for run in runs))
    tasks.sort(key=lambda task: [*LANGUAGES].index(task) if task in LANGUAGES else 0)
    seeds = max(len(one.runs) for one in cells.values())
    rows = sorted(
        dict.fromkeys(row_of(run, told) for run in runs),
        key=lambda row: (
            -statistics.fmean(_mean(cells[row, task]) for task in tasks if (row, task) in cells)
        ),
    )
    lines = [["model", *tasks], ["---"] + ["---:"] * len(tasks)]
    for row in rows:
        lines.append([row.name, *(_cell(cells.get((row, task)), seeds) for task in tasks)])
    chance = [
        f"{100 * next(r for r in runs if task_of(r) == task).summary['held_out']['chance']:.1f}"
        for task in tasks
    ]
    lines.append(["chance", *chance])
    out.mkdir(parents=True, exist_ok=True)
    plot(rows, tasks, cells, out / "right.png")
    (out / "runs.json").write_text(kept(folder, runs, out))
    first = runs[0].summary
    tests = list(first.get("tests", {}))
    text = "\n".join(
        [
            f"# {folder.name}\n",
            f"Right answers in percent, {len(runs)} runs; held-out examples"
            + (f", and after slashes (rings) under {', then '.join(tests)}" if tests else "")
            + ".\n",
            *(f"| {' | '.join(line)} |" for line in lines),
            "\n![right answers](right.png)\n",
            *origin(folder, runs),
        ]
    )
    (out / "report.md").write_text(text)
    return text


def plot(rows: Sequence[Row], tasks: Sequence[str], cells: Cells, path: Path) -> None:
    """Right answers by task, a dot per seed; a ring is the last of the tests."""
    figure = Figure(figsize=(1.6 * len(tasks) + 2, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, row in enumerate(rows):
        color = f"C{number % 10}"
        places, shares, rings = [], [], []
        for column, task in enumerate(tasks):
            for run in cells[row, task].runs if (row, task) in cells else ():
                place = column + (number - len(rows) / 2) / (1.5 * len(rows))
                places.append(place)
                shares.append(100 * run.summary["held_out"]["accuracy"])
                for answers in [*run.summary.get("tests", {}).values()][-1:]:
                    rings.append((place, 100 * answers["accuracy"]))
        axes.plot(places, shares, "o", label=row.name, color=color, markersize=4)
        if rings:
            axes.plot(*zip(*rings, strict=True), "o", color=color, markersize=8, mfc="none")
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set(ylabel="right answers, %", ylim=(-3, 103))
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def _mean(one: Group) -> float:
    return statistics.fmean(run.summary["held_out"]["accuracy"] for run in one.runs)


def _cell(one: Group | None, seeds: int) -> str:
    if one is None:
        return ""
    runs = len(one.runs)
    few = "" if runs == seeds else f" ({runs} of {seeds} runs)"
    parts = [[run.summary["held_out"]["accuracy"] for run in one.runs]]
    for test in one.runs[0].summary.get("tests", {}):
        parts.append([run.summary["tests"][test]["accuracy"] for run in one.runs])
    return " / ".join(_spread([100 * share for share in part]) for part in parts) + few


def _spread(shares: Sequence[float]) -> str:
    alike = f"{min(shares):.1f}" == f"{max(shares):.1f}"
    return spread([statistics.fmean(shares)] if alike else shares, 1)


def main() -> None:
    """Report on a folder of runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(page(args.runs, args.out))


if __name__ == "__main__":
    main()
