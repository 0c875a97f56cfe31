"""Books in the order of time: loss on every period after reading each.

    for period in before-1800 1800-1849 1850-1874 1875-1899; do
        hope prepare data/books/$period --input books/$period \\
            --pattern '**/*.md' --validation 0.08
    done
    python experiments/books/read.py --data data/books --arm hope --seed 0
    python experiments/books/report.py runs/books

A model reads the periods one after the other, each from the weights that the one before left
(`start`), with new optimizer states, as somebody would who goes on training a model a year
later. After each the loss on held-out books of all periods is measured, in windows that lie
evenly over the whole split of each period and are the same for all arms; every file is taken
for a book. Arms are in books/recipe.py. A run that was stopped goes on, a finished one is
skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from books.held_out import BookReader

import hope_jax
from hope_jax.checkpoint.whole_file import write_whole
from hope_jax.config import TrainConfig, override, to_dict
from hope_jax.config.load import load_config
from hope_jax.data import open_dataset
from hope_jax.models import count_params
from hope_jax.parallel import make_mesh, use_mesh
from hope_jax.training import train
from hope_jax.training.identity import device, versions

PERIODS = ("before-1800", "1800-1849", "1850-1874", "1875-1899")
RECIPE = Path(__file__).resolve().parent / "recipe.py"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="with a folder per period")
    parser.add_argument("--arm", required=True, help="see books/recipe.py")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order")
    parser.add_argument("--runs", type=Path, default=Path("runs/books"))
    parser.add_argument(
        "--periods", nargs="+", default=PERIODS, metavar="NAME", help="in the order of time"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a field"
    )
    args = parser.parse_args(argv)
    missing = [p for p in args.periods if not (args.data / p / "manifest.json").is_file()]
    if missing:
        parser.error(f"{args.data / missing[0]} holds no prepared text; see the top of --help")
    config = load_config(f"{RECIPE}:{args.arm}", args.set)
    path = read(config, args.data, args.periods, args.seed, args.runs)
    print(path.read_text())


def read(config: TrainConfig, data: Path, periods: list[str], seed: int, runs: Path) -> Path:
    """Read all periods and measure after each.

    Args:
      config: of one period.
      data: folder with a prepared text per period.
      periods: names in the order of time.
      seed: of weights and order.
      runs: where runs and results go.

    Returns:
      the file with the losses, `RUNS/ARM-seed_S.json`.
    """
    name = f"{config.name}-seed_{seed}"
    path = runs / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    rows = found.get("losses", {})
    start = None
    for number, period in enumerate(periods):
        workdir = runs / name / f"{number}_{period}"
        changes = {"data.path": str(data / period), "seed": seed, "data.seed": seed}
        here = override(config, changes | {"start": start})
        if period not in rows:
            train(here, workdir)
            rows[period] = _losses(here, workdir, data, periods)
            facts = {
                "arm": config.name,
                "seed": seed,
                "periods": list(periods),
                "parameters": count_params(config.model).total,
                "config": to_dict(dataclasses.replace(config, start=None)),
                "device": device(),
                "versions": versions(),
            }
            runs.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(facts | {"losses": rows}, indent=2) + "\n")
        start = str(workdir)
    return path


def _losses(
    config: TrainConfig, workdir: Path, data: Path, periods: list[str]
) -> dict[str, dict[str, Any]]:
    """What `BookReader` finds on held-out books of every period."""
    loaded = hope_jax.load(workdir)
    mesh = make_mesh(config.mesh)
    with use_mesh(mesh):
        reader = BookReader(loaded.model, mesh)
        rows = range(config.data.batch)
        losses = {}
        for period in periods:
            where = dataclasses.replace(config.data, path=str(data / period))
            held_out = open_dataset(where, loaded.tokenizer, split="validation", rows=rows)
            losses[period] = reader(loaded.params, held_out, config.eval_batches)
    return losses


if __name__ == "__main__":
    main()
