"""Keep what finished runs found, and tell it in one table.

    python experiments/collect.py quickstart runs/quickstart \\
        --command "hope train --config experiments/quickstart.py"
    python experiments/collect.py tinyshakespeare/hope runs/a runs/b runs/c --command "..."
    python experiments/collect.py            # only write the table again

Copies summary.json, metrics.jsonl and the plots of each run to experiments/results/NAME/SEED
and writes experiments/results/README.md anew from all that is there. Runs of one name are
seeds of one configuration; the table gives their mean and range.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from hope_jax.sweeps.report import spread

RESULTS = Path(__file__).parent / "results"
KEPT = ("summary.json", "metrics.jsonl", "loss.png", "loss_by_position.png")
COLUMNS = (
    "run",
    "seeds",
    "parameters",
    "tokens",
    "context",
    "held-out nats/token",
    "bits/byte",
    "writes off",
    "byte 3-gram",
    "byte 5-gram",
    "skipped steps",
    "CPU min",
    "wall min",
)
HEAD = """# Results

Written by `python experiments/collect.py` from the folders beside it; each holds the summary of
a run (configuration, versions, device, seeds, figures), its log and its plots. Losses are nats
per token on held-out text that no step has seen, mean over seeds with the range in brackets.
Wall time says little where runs shared the machine; `cpus` is how many processors they had.
Speed and memory are in [bench](bench/README.md), what fits which TPU slice in
[fits](pods/fits/README.md), [scaling](pods/scaling/README.md),
[long contexts](pods/long_context/README.md), [faults](pods/faults/README.md);
comparisons over many runs in
[language_modelling](language_modelling/README.md), [ablations](ablations/README.md),
[loss against position](length/README.md), [BLiMP and LAMBADA](downstream/README.md),
[optimizers](optimizers/README.md), [formal languages](formal_languages/README.md),
[what is remembered across contexts](continual_memory/README.md),
[learning within a text](in_context/README.md),
[a pretrained model](pretrained/README.md),
[classes task by task](class_incremental/README.md) and
[value_expansion](value_expansion/README.md).

"""


def keep(name: str, runs: list[Path], command: str) -> None:
    """Copy what is small and worth keeping of finished runs."""
    for run in runs:
        if not (run / "summary.json").exists():
            raise SystemExit(f"{run} has no summary.json; is the run finished?")
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    row(name, summaries)  # what the table cannot tell is not copied
    for run, summary in zip(runs, summaries, strict=True):
        seed = summary["seeds"]["parameters"]
        folder = RESULTS / name / f"seed_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            if (run / file).exists():
                shutil.copyfile(run / file, folder / file)
    (RESULTS / name / "command.txt").write_text(command + "\n")


def row(name: str, seeds: list[dict]) -> list[str]:
    """One line of the table."""
    first = seeds[0]
    bits = [s["held_out"].get("bits_per_byte") for s in seeds]  # tasks have no bytes
    off = [s["held_out_without_writes"] for s in seeds if s["held_out_without_writes"]]
    gram = lambda n: f"{first['baselines'][n]:.3f}" if n in first["baselines"] else ""
    return [
        f"[{name}]({name})",
        str(len(seeds)),
        f"{first['parameters']:,}",
        f"{first['tokens']:,}",
        str(first["config"]["data"]["length"]),
        spread([s["held_out"]["loss"] for s in seeds]),
        spread(bits) if None not in bits else "",
        spread([o["loss"] for o in off]) if off else "",
        gram("byte 3-gram"),
        gram("byte 5-gram"),
        str(sum(s["skipped_steps"] for s in seeds)),
        spread([s["cpu_seconds"] / 60 for s in seeds], 1),
        spread([s["wall_seconds"] / 60 for s in seeds], 1),
    ]


def write_table() -> None:
    """README.md from all summaries."""
    rows, notes = [COLUMNS, ["---"] * len(COLUMNS)], []
    for command in sorted(RESULTS.glob("**/command.txt")):
        folder = command.parent
        name = folder.relative_to(RESULTS).as_posix()
        summaries = sorted(folder.glob("seed_*/summary.json"))
        seeds = [json.loads(path.read_text()) for path in summaries]
        rows.append(row(name, seeds))
        machine, packages = seeds[0]["device"], seeds[0]["versions"]
        ran_on = ", ".join(f"{k} {v}" for k, v in packages.items())
        where = ", ".join(f"{k} {v}" for k, v in machine.items())
        notes.append(f"## {name}\n\n    {command.read_text().strip()}\n\n{where}; {ran_on}.\n")
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    (RESULTS / "README.md").write_text(HEAD + table + "\n\n" + "\n".join(notes))


def main() -> None:
    """Copy, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="folder under experiments/results")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--command", metavar="LINE", help="what made them")
    args = parser.parse_args()
    if args.name and not (args.runs and args.command):
        parser.error("name the run folders, and give the --command that made them")
    if args.name:
        keep(args.name, args.runs, args.command)
    write_table()


if __name__ == "__main__":
    main()
