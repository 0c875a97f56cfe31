"""Train every update rule at several learning rates and compare each at its best.

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    python experiments/optimizers/sweep.py train --data data/wikitext-2
    python experiments/optimizers/sweep.py report

`train` starts from five rates per rule, a factor of two apart, goes on beyond the end of the
row for as long as the best rate is the last one there, and then trains the best rate with
further seeds. Runs that are done are not done again, and one that was stopped goes on, so
the command may be stopped and repeated; several may work side by side on different --models
or --rules. A rule may be followed by its fields: --rules "m3 alpha=0" muon. `report` writes
the table, the plots and all figures of the runs to experiments/results/optimizers.

Cost on one CPU core: about a minute a run for the Transformer, two for HOPE, 70 runs in all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from matplotlib.figure import Figure

from hope_jax.config import (
    RULE_CONFIGS,
    TrainConfig,
    from_dict,
    override,
    parse_assignments,
    to_dict,
)
from hope_jax.models import abstract_params
from hope_jax.optim import make
from hope_jax.training import train
from hope_jax.training.finite import NonFinite
from hope_jax.training.metrics import read_log

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "optimizers"
GET_CONFIG = runpy.run_path(str(HERE / "wikitext.py"))["get_config"]
# Where the rows of learning rates begin: AdamW's updates are smaller where they agree least.
FIRST = {"adamw": 7.5e-4}
FIRST_OTHERS = 2.5e-3
RATES, MOST = 5, 8


def rate_name(rate: float) -> str:
    """A learning rate as part of a folder's name."""
    return f"{rate:.2e}"


def config_of(model: str, rule: str, rate: float, seed: int, args: Any) -> TrainConfig:
    """One run; `rule` may be followed by fields, as in "m3 alpha=0"."""
    rule, *fields = rule.split()
    changes = {"optim.lr": rate, "seed": seed, "data.seed": seed, "data.path": str(args.data)}
    changes |= {f"optim.rule.{k}": v for k, v in parse_assignments(fields).items()}
    if args.steps:
        changes |= {"steps": args.steps, "eval_every": args.steps}
    return override(GET_CONFIG(f"{model}-{rule}"), changes)


def run(model: str, rule: str, rate: float, seed: int, args: Any) -> float:
    """Train once, or read what was found; the held-out loss, infinite if it diverged."""
    workdir = args.runs / model / rule.replace(" ", "_") / f"lr_{rate_name(rate)}_seed_{seed}"
    found = workdir / "result.json"
    if not found.exists():
        config = config_of(model, rule, rate, seed, args)
        try:
            summary = train(config, workdir).summary
        except NonFinite as error:
            summary = {"diverged": str(error)}
        if summary is None:
            raise SystemExit("stopped; the same command goes on")
        jax.clear_caches()
        kept = {
            "model": model,
            "rule": rule,
            "rate": rate,
            "seed": seed,
            "loss": summary.get("held_out", {}).get("loss"),
            "curve": [
                (r["step"], r["loss"])
                for r in read_log(workdir / "metrics.jsonl")
                if "loss" in r
            ],
            **{k: summary.get(k) for k in KEPT},
        }
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(workdir / "checkpoints")  # a sweep's worth of them fills disks
        found.write_text(json.dumps(kept))
    loss = json.loads(found.read_text())["loss"]
    return float("inf") if loss is None else loss


KEPT = ("config", "parameters", "tokens", "cpu_seconds", "compile_seconds", "skipped_steps")
KEPT += ("diverged", "versions", "device")


def sweep(model: str, rule: str, args: Any) -> None:
    """All rates of a rule, then more seeds of the best."""
    rates = [FIRST.get(rule.split()[0], FIRST_OTHERS) * 2**i for i in range(RATES)]
    while True:
        losses = {rate: run(model, rule, rate, 0, args) for rate in rates}
        best = min(losses, key=losses.get)
        if len(rates) >= MOST or best not in (rates[0], rates[-1]):
            break
        rates = [rates[0] / 2, *rates] if best == rates[0] else [*rates, rates[-1] * 2]
    for seed in range(1, args.seeds):
        run(model, rule, best, seed, args)


def collect(runs: Path) -> list[dict[str, Any]]:
    """Results of all runs."""
    found = [json.loads(path.read_text()) for path in sorted(runs.glob("*/*/*/result.json"))]
    if not found:
        raise SystemExit(f"no finished run under {runs}; train first")
    for run in found:
        run["rule"] = label(run["config"])
    return found


def label(config: dict[str, Any]) -> str:
    """The rule of a run, with the fields in which it is not the default."""
    fields = dict(config["optim"]["rule"])
    kind = fields.pop("type")
    usual = to_dict(RULE_CONFIGS[kind]())
    return " ".join([kind, *(f"{k}={v}" for k, v in fields.items() if v != usual[k])])


def best_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs at the rate with the lowest loss for the first seed, by seed."""
    first = [r for r in runs if r["seed"] == 0 and r["loss"] is not None]
    if not first:
        return []
    rate = min(first, key=lambda r: r["loss"])["rate"]
    return sorted((r for r in runs if r["rate"] == rate), key=lambda r: r["seed"])


def table(found: list[dict[str, Any]]) -> str:
    """Every rule at its best, and the losses at all its rates."""
    lines = []
    for model in dict.fromkeys(r["model"] for r in found):
        mine = [r for r in found if r["model"] == model]
        lines += [
            f"## {model}, {mine[0]['parameters']:,} parameters, {mine[0]['tokens']:,} bytes\n",
            "| rule | best rate | held-out loss, nats/byte (range, seeds) | against AdamW | "
            "CPU s/step, all in | state, bytes/parameter | skipped | seed 0 at every rate |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        adamw = mean_loss(best_of([r for r in mine if r["rule"] == "adamw"]))
        rows = []
        for rule in dict.fromkeys(r["rule"] for r in mine):
            runs = [r for r in mine if r["rule"] == rule]
            best = best_of(runs)
            if not best:
                continue
            losses = [r["loss"] for r in best]
            mean = mean_loss(best)
            seconds = min(r["cpu_seconds"] / r["config"]["steps"] for r in best)
            row = sorted((r["rate"], r["loss"]) for r in runs if r["seed"] == 0)
            everywhere = ", ".join(
                f"{rate:g}: {'diverged' if loss is None else f'{loss:.3f}'}"
                for rate, loss in row
            )
            cells = [
                rule,
                f"{best[0]['rate']:g}",
                f"{mean:.3f} ({min(losses):.3f} to {max(losses):.3f}, {len(losses)})",
                f"{mean - adamw:+.3f}",
                f"{seconds:.3f}",
                f"{state_bytes(best[0]) / best[0]['parameters']:.1f}",
                str(sum(r["skipped_steps"] for r in best)),
                everywhere,
            ]
            rows.append((mean, f"| {' | '.join(cells)} |"))
        lines += [line for _, line in sorted(rows)] + [""]
    return "\n".join(lines)


def state_bytes(run: dict[str, Any]) -> int:
    """Bytes of the optimizer's state."""
    config = from_dict(run["config"])
    params = nn.unbox(abstract_params(config.model))
    state = jax.eval_shape(make(config, params).init, params)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def mean_loss(runs: list[dict[str, Any]]) -> float:
    """Mean over seeds."""
    losses = [r["loss"] for r in runs if r["loss"] is not None]
    return sum(losses) / len(losses) if losses else float("nan")


def plot(found: list[dict[str, Any]], folder: Path) -> None:
    """Loss against the learning rate, and the loss curve at the best rate, per model."""
    for model in dict.fromkeys(r["model"] for r in found):
        figure = Figure(figsize=(12, 4.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        for rule in dict.fromkeys(r["rule"] for r in found if r["model"] == model):
            runs = [r for r in found if (r["model"], r["rule"]) == (model, rule)]
            row = sorted(
                (r["rate"], r["loss"]) for r in runs if r["seed"] == 0 and r["loss"] is not None
            )
            left.plot(*zip(*row, strict=True), "o-", label=rule, markersize=4)
            curve = best_of(runs)[0]["curve"]
            right.plot(*zip(*curve, strict=True), label=rule, linewidth=1)
        left.set(xscale="log", xlabel="learning rate", ylabel="held-out loss, nats per byte")
        left.set_ylim(top=min(3.0, left.get_ylim()[1]))
        right.set(xlabel="step", ylabel="training loss at the best rate", yscale="log")
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend()
        figure.suptitle(model)
        figure.savefig(folder / f"{model}.png", dpi=110)


def report(runs: Path, folder: Path) -> None:
    """Table, plots and figures from finished runs."""
    found = collect(runs)
    folder.mkdir(parents=True, exist_ok=True)
    plot(found, folder)
    first = found[0]
    common = {k: first[k] for k in ("versions", "device")}
    same = [{k: v for k, v in r.items() if k not in common} for r in found]
    for r in same:
        r["config"] = {k: r["config"][k] for k in ("model", "data", "optim", "steps")}
        r["config"]["data"]["path"] = Path(r["config"]["data"]["path"]).name
        r["curve"] = [(step, round(loss, 4)) for step, loss in r["curve"]]
    lines = ",\n".join(json.dumps(r) for r in same)
    text = json.dumps(common)[:-1] + f', "runs": [\n{lines}\n]}}\n'
    (folder / "runs.json").write_text(text)
    ran_on = ", ".join(f"{k} {v}" for part in common.values() for k, v in part.items())
    (folder / "sweep.md").write_text(
        "Written by `python experiments/optimizers/sweep.py report`; all runs are in "
        "runs.json. CPU seconds include compiling and evaluation.\n\n"
        f"{table(found)}\n{ran_on}.\n"
    )
    print(table(found))


def main() -> None:
    """`train` or `report`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=("train", "report"))
    parser.add_argument("--data", type=Path, default=Path("data/wikitext-2"), metavar="FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("runs/optimizers"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--models", nargs="+", default=["transformer", "hope"])
    parser.add_argument(
        "--rules",
        nargs="+",
        default=["adamw", "muon", "m3", "delta_momentum", "deep_momentum"],
    )
    parser.add_argument("--seeds", type=int, default=2, help="of the best rate")
    parser.add_argument("--steps", type=int, help="fewer or more than the configuration has")
    args = parser.parse_args()
    if args.do == "report":
        return report(args.runs, args.out)
    for model in args.models:
        for rule in args.rules:
            sweep(model, rule, args)


if __name__ == "__main__":
    main()
