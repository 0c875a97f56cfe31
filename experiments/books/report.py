"""The page and the plot of `books/read.py`, from the files that it wrote.

python experiments/books/report.py runs/books
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from hope_jax.sweeps.report import spread

OUT = Path(__file__).resolve().parents[1] / "results" / "books"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder with the files of read.py")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    print(report(args.runs, args.out))


def report(runs: Path, out: Path) -> str:
    """Write README.md, losses.json and losses.png; the text of the page.

    Raises:
      ValueError: there is no run that read all periods.
    """
    found = [json.loads(path.read_text()) for path in sorted(runs.glob("*-seed_*.json"))]
    whole = [run for run in found if len(run["losses"]) == len(run["periods"])]
    if not whole:
        raise ValueError(f"{runs} holds no finished run; see read.py --help")
    arms: dict[str, list[Any]] = {}
    for run in whole:
        arms.setdefault(run["arm"], []).append(run)
    page = _page(arms, whole[0]["periods"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "README.md").write_text(page)
    (out / "losses.json").write_text(json.dumps(whole, indent=1) + "\n")
    _plot(arms, whole[0]["periods"], out / "losses.png")
    return page


def forgetting(run: dict[str, Any]) -> float:
    """By how much the loss on earlier periods is higher at the end than right after each.

    >>> losses = {"a": {"a": 2.0, "b": 3.0}, "b": {"a": 2.5, "b": 2.0}}
    >>> forgetting({"periods": ["a", "b"], "losses": losses})
    0.5
    """
    *earlier, last = run["periods"]
    losses = run["losses"]
    return statistics.mean(losses[last][p] - losses[p][p] for p in earlier)


def final(run: dict[str, Any]) -> float:
    """Mean loss over all periods at the end."""
    return statistics.mean(run["losses"][run["periods"][-1]].values())


def _page(arms: dict[str, list[Any]], periods: list[str]) -> str:
    first = next(iter(arms.values()))[0]
    lines = [
        "# Books in the order of time",
        "",
        "Periods are read one after the other, each from the weights that the one before left; "
        "losses are nats per token on held-out books, mean over seeds with the range in "
        "brackets. Forgetting is by how much the loss on earlier periods is higher at the end "
        "than right after each was read; below 0 later books helped.",
        "",
        "| arm | seeds | parameters | all periods, at the end | forgetting |",
        "|---|---:|---:|---:|---:|",
    ]
    for arm, runs in arms.items():
        lines.append(
            f"| {arm} | {len(runs)} | {runs[0]['parameters']:,} | "
            f"{spread([final(r) for r in runs])} | {spread([forgetting(r) for r in runs])} |"
        )
    for arm, runs in arms.items():
        lines += ["", f"## {arm}", "", "| after reading | " + " | ".join(periods) + " |"]
        lines.append("|---|" + "---:|" * len(periods))
        for read in periods:
            cells = [spread([run["losses"][read][p] for run in runs]) for p in periods]
            lines.append(f"| {read} | " + " | ".join(cells) + " |")
    config, on = first["config"], first["device"]
    tokens = config["steps"] * config["data"]["batch"] * config["data"]["length"]
    lines += [
        "",
        "![losses](losses.png)",
        "",
        f"{tokens:,} tokens of each period; `python experiments/books/read.py --data "
        "data/books --arm ARM --seed S`, then `python experiments/books/report.py runs/books`. "
        "Platform "
        f"{on['kind']}, {on['cpus']} processors, {on['machine']}, "
        + ", ".join(f"{k} {v}" for k, v in first["versions"].items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _plot(arms: dict[str, list[Any]], periods: list[str], path: Path) -> None:
    figure, axes = plt.subplots(
        1, len(periods), figsize=(3 * len(periods), 3), sharey=True, layout="constrained"
    )
    for axis, tested in zip(axes, periods, strict=True):
        for arm, runs in arms.items():
            columns = [[run["losses"][read][tested] for run in runs] for read in periods]
            middle = [statistics.mean(column) for column in columns]
            (line,) = axis.plot(range(len(periods)), middle, "o-", label=arm)
            low, high = zip(*((min(c), max(c)) for c in columns), strict=True)
            axis.fill_between(range(len(periods)), low, high, alpha=0.2, color=line.get_color())
        axis.axvline(periods.index(tested), color="0.8", zorder=0)
        axis.set_title(f"books {tested}", fontsize=9)
        axis.set_xticks(range(len(periods)), periods, rotation=30, fontsize=7)
    axes[0].set_ylabel("held-out loss, nats per token")
    axes[0].legend(fontsize=8)
    figure.supxlabel("after reading", fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
