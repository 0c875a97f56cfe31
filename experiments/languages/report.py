"""The page and the plot of `languages/run.py`, from the files that it wrote.

python experiments/languages/report.py runs/languages

What a person made of the figures is taken from findings.md in OUT, if it is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hope_jax.sweeps.report import spread

OUT = Path(__file__).resolve().parents[1] / "results" / "languages"
Runs = list[dict[str, Any]]
CONTEXTS = {"empty": "nothing read in the context", "context": "the last pages in the context"}


def report(folder: Path, out: Path) -> str:
    """Write README.md, runs.json and chrf.png; the text of the page.

    Raises:
      ValueError: there is no run that read both languages.
    """
    runs = [
        json.loads(file.read_text()) for file in sorted(folder.glob("levels_*-seed_*.json"))
    ]
    runs = [run for run in runs if len(run["after"]) == len(run["before"])]
    if not runs:
        raise ValueError(f"{folder} holds no finished run; see run.py --help")
    out.mkdir(parents=True, exist_ok=True)
    findings = out / "findings.md"
    page = _page(runs, findings.read_text() if findings.exists() else "")
    (out / "README.md").write_text(page)
    rows = ",\n".join(json.dumps(run, ensure_ascii=False) for run in runs)
    (out / "runs.json").write_text(f"[\n{rows}\n]\n")
    _plot(runs, out / "chrf.png")
    return page


def measured(run: dict[str, Any], after: str | None, of: str, context: str) -> dict[str, Any]:
    """What a run knew of a language after another was read.

    None: before any was; there is nothing to put into the context then.
    """
    if after is None:
        return run["before"][of]["empty"]
    return run["after"][after]["asked"][of][context]


def _page(runs: Runs, findings: str) -> str:
    first = runs[0]
    one, two = first["after"]
    how = first["how"]
    lines = [
        "# A new language, then another",
        "",
        f"{first['base']} reads {how['entries']} words and {how['sentences']} sentences of "
        f"{one} with their English, {how['passes']} times, then as much of {two}, whose words "
        f"are invented ones for English. It translates {how['asked']} sentences of each "
        "language that it has not read, with four sentences before each that show what is "
        "wanted. Without levels nothing is learned and only the context can help; with levels "
        f"the MLPs of the last {how['blocks']} blocks take steps of Adam at rate {how['lr']:g} "
        "while it reads. Mean over seeds with the range in brackets; chrF is out of 100, more "
        "is better; nats per token of the right translation, less is better. The paper has a "
        "figure of this (section 9.1) without numbers, for models of billions of parameters.",
        "",
        *([findings] if findings else []),
    ]
    moments = [(None, one), (one, one), (two, one), (None, two), (two, two)]
    titles = ["levels", "seeds", *(_title(*moment) for moment in moments)]
    for context, said in CONTEXTS.items():
        for key, digits in (("chrf", 1), ("loss", 2)):
            name = "chrF" if key == "chrf" else "Nats per token"
            lines += [f"## {name}, {said}", "", f"| {' | '.join(titles)} |"]
            lines.append("|---" * len(titles) + "|")
            for levels, found in by_levels(runs).items():
                cells = [str(levels), ", ".join(str(run["seed"]) for run in found)]
                for after, of in moments:
                    values = [measured(run, after, of, context)[key] for run in found]
                    cells.append(spread(values, digits))
                lines.append(f"| {' | '.join(cells)} |")
            lines.append("")
    seconds = {
        levels: spread(milliseconds(found), 1)
        for levels, found in by_levels(runs).items()
        if levels
    }
    made = first["device"] | first["versions"]
    return "\n".join(
        [
            *lines,
            "![chrF](chrf.png)",
            "",
            "Milliseconds per token read, compiling included: "
            + "; ".join(f"{levels} levels {of}" for levels, of in seconds.items())
            + ".",
            "",
            "`python experiments/languages/run.py --help` says how to repeat it; what every "
            "run wrote is in runs.json. "
            + ", ".join(f"{k} {v}" for k, v in made.items())
            + ".",
            "",
        ]
    )


def by_levels(runs: Runs) -> dict[int, Runs]:
    """Runs of each number of levels, fewest first."""
    numbers = sorted({run["levels"] for run in runs})
    return {levels: [run for run in runs if run["levels"] == levels] for levels in numbers}


def milliseconds(runs: Runs) -> list[float]:
    """Per token that was read, of every run and language."""
    read = [of for run in runs for of in run["after"].values()]
    return [1e3 * of["seconds"] / of["tokens"] for of in read]


def _title(after: str | None, of: str) -> str:
    return f"{of}, {'before' if after is None else f'after {after}'}"


def _plot(runs: Runs, path: Path) -> None:
    """Of each language before and after each reading, a line per number of levels."""
    one, two = runs[0]["after"]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, of, moments in ((axes[0], one, (None, one, two)), (axes[1], two, (None, two))):
        for levels, found in by_levels(runs).items():
            for context, style in (("empty", "o-"), ("context", "s--")):
                values = [
                    [measured(run, after, of, context)["chrf"] for run in found]
                    for after in moments
                ]
                middle = [statistics.fmean(v) for v in values]
                label = f"{levels} levels" + (
                    ", pages in context" if context != "empty" else ""
                )
                axis.plot(range(len(moments)), middle, style, color=f"C{levels}", label=label)
                low, high = [min(v) for v in values], [max(v) for v in values]
                axis.fill_between(
                    range(len(moments)), low, high, color=f"C{levels}", alpha=0.1, linewidth=0
                )
        names = ["before" if after is None else f"after {after}" for after in moments]
        axis.set_xticks(range(len(moments)), names)
        axis.set_title(f"{of} into English", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("chrF of held-out sentences")
    axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    """Report on a folder of measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder that run.py wrote (its --out)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder of the page ({OUT})")
    args = parser.parse_args(argv)
    try:
        print(report(args.runs, args.out))
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
