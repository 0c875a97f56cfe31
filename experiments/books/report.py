"""The page and the plot of `books/read.py`, from the files that it wrote.

    python experiments/books/report.py runs/books

Losses are means over seeds; after ± stands the standard error over held-out books.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from books.held_out import over_books

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
      ValueError: there is no run that read all periods, or not all were asked the same books.
    """
    found = [json.loads(path.read_text()) for path in sorted(runs.glob("*-seed_*.json"))]
    whole = [run for run in found if len(run["losses"]) == len(run["periods"])]
    if not whole:
        raise ValueError(f"{runs} holds no finished run; see read.py --help")
    if len({json.dumps(_asked(run)) for run in whole}) > 1:
        raise ValueError(f"runs in {runs} differ in their periods or held-out books")
    arms: dict[str, list[Any]] = {}
    for run in whole:
        arms.setdefault(run["arm"], []).append(run)
    page = _page(arms, whole[0]["periods"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "README.md").write_text(page)
    (out / "losses.json").write_text(json.dumps(whole, indent=1) + "\n")
    _plot(arms, whole[0]["periods"], out / "losses.png")
    return page


def _asked(run: dict[str, Any]) -> list[Any]:
    """Tokens of every held-out book of every period, each time they were asked."""
    losses = run["losses"]
    return [
        [p, q, [book[:2] for book in losses[p][q]["books"]]]
        for p in run["periods"]
        for q in run["periods"]
    ]


def forgetting(run: dict[str, Any]) -> float:
    """By how much the loss on earlier periods is higher at the end than right after each.

    >>> at = lambda a, b: {"a": {"loss": a}, "b": {"loss": b}}
    >>> forgetting({"periods": ["a", "b"], "losses": {"a": at(2.0, 3.0), "b": at(2.5, 2.0)}})
    0.5
    """
    *earlier, last = run["periods"]
    losses = run["losses"]
    return statistics.mean(losses[last][p]["loss"] - losses[p][p]["loss"] for p in earlier)


def final(run: dict[str, Any]) -> float:
    """Mean loss over all periods at the end."""
    return statistics.mean(one["loss"] for one in run["losses"][run["periods"][-1]].values())


def error(runs: list[Any], read: str, tested: str, since: str | None = None) -> float | None:
    """Standard error over books of the loss on `tested` after `read`, or of what it rose since.

    The books are the same for all seeds, so that their mean is taken first.
    """
    books = runs[0]["losses"][read][tested]["books"]

    def mean(after: str) -> list[float]:
        of_runs = ([b[2] for b in run["losses"][after][tested]["books"]] for run in runs)
        return [statistics.fmean(column) for column in zip(*of_runs, strict=True)]

    losses, before = mean(read), mean(since) if since else [0.0] * len(books)
    return over_books(books, [a - b for a, b in zip(losses, before, strict=True)])[1]


def error_of_mean(errors: list[float | None]) -> float | None:
    """Of the mean over periods, whose books are others; None where one is unknown.

    >>> error_of_mean([3.0, 4.0]), error_of_mean([3.0, None])
    (2.5, None)
    """
    return None if None in errors else math.hypot(*errors) / len(errors)


def _cell(values: list[float], error: float | None) -> str:
    return spread(values) + ("" if error is None else f" ± {error:.3f}")


def _page(arms: dict[str, list[Any]], periods: list[str]) -> str:
    first = next(iter(arms.values()))[0]
    lines = [
        "# Books in the order of time",
        "",
        "Periods are read one after the other, each from the weights that the one before left; "
        "losses are nats per token on held-out books, mean over seeds with the range in "
        "brackets. Forgetting is by how much the loss on earlier periods is higher at the end "
        "than right after each was read; below 0 later books helped. After ± is the standard "
        "error over held-out books, of forgetting over its differences book by book; nothing "
        "stands there where a single book was asked. All arms were asked the same text.",
        "",
        f"Held out, in windows of {first['config']['data']['length']} tokens that lie evenly "
        "over the whole split: " + "; ".join(_held_out(first, p) for p in periods) + ".",
        "",
        "| arm | seeds | parameters | all periods, at the end | forgetting |",
        "|---|---:|---:|---:|---:|",
    ]
    *earlier, last = periods
    for arm, runs in arms.items():
        of_final = error_of_mean([error(runs, last, p) for p in periods])
        of_forgetting = error_of_mean([error(runs, last, p, since=p) for p in earlier])
        lines.append(
            f"| {arm} | {len(runs)} | {runs[0]['parameters']:,} | "
            f"{_cell([final(r) for r in runs], of_final)} | "
            f"{_cell([forgetting(r) for r in runs], of_forgetting)} |"
        )
    for arm, runs in arms.items():
        lines += ["", f"## {arm}", "", "| after reading | " + " | ".join(periods) + " |"]
        lines.append("|---|" + "---:|" * len(periods))
        for read in periods:
            cells = [
                _cell([run["losses"][read][p]["loss"] for run in runs], error(runs, read, p))
                for p in periods
            ]
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


def _held_out(run: dict[str, Any], period: str) -> str:
    one = run["losses"][period][period]
    return (
        f"{period} {one['windows']} windows of {len(one['books'])} of {one['documents']} books"
    )


def _plot(arms: dict[str, list[Any]], periods: list[str], path: Path) -> None:
    figure, axes = plt.subplots(
        1, len(periods), figsize=(3 * len(periods), 3), sharey=True, layout="constrained"
    )
    for axis, tested in zip(axes, periods, strict=True):
        for arm, runs in arms.items():
            columns = [
                [run["losses"][read][tested]["loss"] for run in runs] for read in periods
            ]
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
