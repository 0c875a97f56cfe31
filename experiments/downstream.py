"""BLiMP and LAMBADA of every finished run below a folder, with chance lines and one table.

    hope sweep experiments/length/models.py --local 2 --set data.path=data/wikitext-2 \\
        --workdir runs/length
    python experiments/downstream.py --runs runs/length --data evaluation --limit 100

`evaluation` holds the files that docs/evaluation.md lists. Each run is one `hope evaluate`,
whose figures go to experiments/results/downstream/RUN.json; a run that has some is not measured
again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.progress import track

from hope_jax.sweeps import find_runs
from hope_jax.sweeps.collect import without_copies
from hope_jax.sweeps.report import spread

OUT = Path(__file__).resolve().parent / "results" / "downstream"
TASKS = ("blimp", "lambada")


def evaluate(run: Path, data: Path, limit: int | None, file: Path) -> None:
    """The figures of one run into a file.

    Raises:
      SystemExit: `hope evaluate` did not end well; it has said why.
    """
    command = ["evaluate", "--workdir", str(run), "--tasks", *TASKS, "--data", str(data)]
    command += ["--out", str(file)] + ([] if limit is None else ["--limit", str(limit)])
    done = subprocess.run([sys.executable, "-m", "hope_jax", *command], check=False)
    if done.returncode:
        raise SystemExit(f"{run}: hope evaluate ended with status {done.returncode}")


def report(out: Path) -> str:
    """A table over seeds, and what BLiMP is made of; returns the page.

    Raises:
      SystemExit: nothing was measured.
    """
    by_name: dict[str, list[dict]] = {}
    for file in sorted(out.glob("*.json")):
        by_name.setdefault(file.stem.split("-seed_")[0], []).append(
            json.loads(file.read_text())
        )
    if not by_name:
        raise SystemExit(f"nothing was measured yet: there is no RUN.json in {out}")
    first = next(iter(by_name.values()))[0]
    heads = [f"{one['task']}, {one['metric']}" for one in first["results"]]
    figures = {
        name: [[one["value"] for one in run["results"]] for run in runs]
        for name, runs in by_name.items()
    }
    order = sorted(figures, key=lambda name: -sum(run[0] for run in figures[name]))
    lines = [["model", *heads, "seeds"], ["---", *["---:"] * (len(heads) + 1)]]
    for name in order:
        cells = [
            spread(values) if max(values) < 1000 else f"{min(values):.2g} to {max(values):.2g}"
            for values in zip(*figures[name], strict=True)
        ]
        lines.append([name, *cells, str(len(figures[name]))])
    say = lambda value: "" if value is None else f"{value:.3g}"
    lines.append(["chance", *(say(one["chance"]) for one in first["results"]), ""])
    error = [say(one["standard_error"]) for one in first["results"]]
    lines.append(["standard error of one run", *error, ""])
    lines.append(["items", *(f"{one['items']:,}" for one in first["results"]), ""])
    origin = first["device"] | first["versions"]
    findings = out / "findings.md"  # what a person made of the figures
    page = "\n".join(
        [
            "# Downstream\n",
            *([findings.read_text()] if findings.exists() else []),
            "Written by `python experiments/downstream.py`, which says how. Mean over seeds, "
            "and the range.\n",
            *(f"| {' | '.join(cells)} |" for cells in lines),
            "",
            *_parts(by_name, order),
            f"    {first['command']}\n",
            ", ".join(f"{k} {v}" for k, v in origin.items()),
            "",
        ]
    )
    (out / "README.md").write_text(page)
    return page


def _parts(by_name: dict[str, list[dict]], order: list[str]) -> list[str]:
    """BLiMP by paradigm, mean over seeds; best first for the model that is first."""
    parts = {name: [_by_part(run) for run in runs] for name, runs in by_name.items()}
    mean = lambda name, part: sum(run[part] for run in parts[name]) / len(parts[name])
    paradigms = sorted(parts[order[0]][0], key=lambda part: -mean(order[0], part))
    lines = [["paradigm of BLiMP", *order], ["---", *["---:"] * len(order)]]
    lines += [[part, *(f"{mean(name, part):.2f}" for name in order)] for part in paradigms]
    table = [f"| {' | '.join(cells)} |" for cells in lines]
    return ["<details><summary>BLiMP by paradigm</summary>\n", *table, "\n</details>\n"]


def _by_part(run: dict) -> dict[str, float]:
    """Figures of the parts of the first task."""
    return {part["task"].split("/")[-1]: part["value"] for part in run["results"][0]["parts"]}


def main() -> None:
    """Measure what is not measured yet, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="without it, only the page is written")
    parser.add_argument("--data", type=Path, help="folder of the tasks' files")
    parser.add_argument("--limit", type=int, metavar="N", help="items of a task or paradigm")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.runs:
        if args.data is None:
            raise SystemExit("--runs needs --data, a folder as docs/evaluation.md says")
        for run in track(without_copies(find_runs(args.runs))[0], "runs"):
            file = args.out / f"{run.path.name}.json"
            if not file.exists():
                evaluate(run.path, args.data, args.limit, file)
    print(report(args.out))


if __name__ == "__main__":
    main()
