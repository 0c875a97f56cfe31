"""Class-incremental learning: classes come task by task, and all so far are asked after each.

    hope prepare data/wikitext-2-2k --input wiki.train.tokens \\
        --validation-input wiki.valid.tokens --tokenizer sentencepiece --vocab-size 2048
    hope train --config experiments/class_incremental/base.py \\
        --set data.path=data/wikitext-2-2k --workdir runs/class_incremental_base
    python experiments/class_incremental/run.py --data clinc150/ --dataset clinc150 \\
        --base runs/class_incremental_base --out runs/class_incremental --arm hope_2 --tune
    python experiments/class_incremental/run.py --data clinc150/ --dataset clinc150 \\
        --base runs/class_incremental_base --out runs/class_incremental --arm hope_2 \\
        --seed 0 1 2
    python experiments/class_incremental/report.py runs/class_incremental

One base model; a seed draws the order of tasks, the examples and the queries. What is measured
is not measured again. --tune tries an arm's settings on seed 100 and its first tasks, with
queries of the validation split, and writes tuned/DATASET-ARM.json into OUT. Later runs take the
best of the trials with the same dataset, base and examples per class, of those with the most
tasks; where there are only others they are refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from class_incremental import trials
from class_incremental.arms import ARMS
from class_incremental.classes import FILES, PUBLISHED, Pool, read, tasks
from class_incremental.coding import Coder, label_ids
from class_incremental.learners import Settings
from class_incremental.measure import measure
from rich.progress import track

import hope_jax
from hope_jax.checkpoint.whole_file import write_whole
from hope_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer
from hope_jax.training.identity import device, versions

# Tokens of a prompt; about one utterance in ten is longer, and its end is cut.
LONGEST = {"clinc150": 24, "banking77": 40}


def load_base(path: Path) -> hope_jax.Loaded:
    """The base model.

    Raises:
      ValueError: its tokens are no words, or it has no levels that could be stacked.
    """
    base = hope_jax.load(path)
    if not isinstance(base.tokenizer, SentencePieceTokenizer):
        raise ValueError(
            f"{path} has the tokenizer {base.tokenizer.name!r}; classes are words of a "
            "SentencePiece vocabulary: train the base as base.py says"
        )
    periods = base.config.model.cms.periods
    if len(periods) > 1:
        raise ValueError(
            f"{path} has the CMS periods {periods}; level stacking makes levels of a model "
            "with one: train the base as base.py says"
        )
    return base


def run(
    base: hope_jax.Loaded,
    pool: Pool,
    arm: str,
    settings: Settings,
    seed: int,
    per_class: int,
    queries: int,
    split: str = "test",
    first: int | None = None,
) -> dict[str, Any]:
    """Measure an arm on one seed, on its `first` tasks (None: all)."""
    found = tasks(pool, seed, per_class, queries, split)[:first]
    coder = Coder(base.tokenizer, label_ids(base.tokenizer, pool), LONGEST[pool.dataset])
    learner = ARMS[arm].learner(base, coder, settings, seed)
    bar = track(found, f"{pool.dataset} {arm} seed {seed}", transient=True)
    return {
        "dataset": pool.dataset,
        "arm": arm,
        "seed": seed,
        "settings": dataclasses.asdict(settings),
        "per_class": per_class,
        "queries_per_class": queries,
        "classes": [len(task.intents) for task in found],
        **measure(learner, bar, coder, len(found)),
    }


def tune(base, pool, arm: str, args: argparse.Namespace) -> None:
    """Try an arm's settings, those that are not tried yet under the same conditions."""
    done = trials.read(args.out, args.dataset, arm)
    here = trials.conditions(base, args.dataset, args.per_class) | {"first": args.first}
    tried = ARMS[arm].tried
    for values in itertools.product(*tried.values()):
        changes = dict(zip(tried, values, strict=True))
        settings = dataclasses.replace(settings_of_code(arm, args), **changes)
        known = (one["settings"] for one in done if trials.agrees(one, here))
        if any(trials.same(one, settings) for one in known):
            continue
        found = run(
            base,
            pool,
            arm,
            settings,
            trials.SEED,
            args.per_class,
            trials.QUERIES,
            trials.SPLIT,
            args.first,
        )
        done.append({"changes": changes, **found, **here})
        file = trials.file_of(args.out, args.dataset, arm)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(done, indent=1) + "\n")
        print(f"{arm} {changes}: {found['final']:.3f}", flush=True)


def settings_of_code(arm: str, args: argparse.Namespace) -> Settings:
    """Settings of an arm with what the command line says (`--set`)."""
    changes = {}
    for text in args.set:
        name, _, value = text.partition("=")
        known = {field.name for field in dataclasses.fields(Settings)}
        if name not in known:
            raise ValueError(f"--set {text}: there is no {name!r}; give one of {sorted(known)}")
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            pass  # a word
        changes[name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(ARMS[arm].settings, **changes)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arms = "\n".join(f"  {name:<15}{arm.help}" for name, arm in ARMS.items())
    files = "\n".join(f"  {d}: {', '.join(FILES[d])} of {PUBLISHED[d]}" for d in FILES)
    made = argparse.ArgumentParser(
        description=f"{__doc__}\narms:\n{arms}\n\ndata, in the folder --data:\n{files}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--data", type=Path, required=True, help="folder with the dataset")
    made.add_argument("--base", type=Path, required=True, help="run of the base model")
    made.add_argument("--dataset", required=True, choices=FILES)
    made.add_argument("--arm", required=True, nargs="+", choices=ARMS, metavar="ARM")
    made.add_argument("--seed", type=int, nargs="+", default=[0])
    made.add_argument("--out", type=Path, required=True, help="folder of the measurements")
    made.add_argument("--per-class", type=int, default=15, help="examples to learn from (15)")
    made.add_argument("--queries", type=int, default=4, help="queries per class (4)")
    made.add_argument("--tune", action="store_true", help="try settings instead of measuring")
    made.add_argument("--first", type=int, default=3, help="tasks that --tune looks at (3)")
    made.add_argument(
        "--set", nargs="*", default=[], metavar="SETTING=VALUE", help="try with this in --tune"
    )
    return made


def main(argv: list[str] | None = None) -> None:
    """Measure or tune arms."""
    made = parser()
    args = made.parse_args(argv)
    try:
        pool, base = read(args.data, args.dataset), load_base(args.base)
        if args.tune:
            for arm in args.arm:
                tune(base, pool, arm, args)
            return
        for seed, arm in itertools.product(args.seed, args.arm):
            measure_once(base, pool, arm, seed, args)
    except (ValueError, FileNotFoundError) as error:
        made.exit(2, f"{made.prog}: error: {error}\n")


def measure_once(base, pool, arm: str, seed: int, args: argparse.Namespace) -> None:
    """Measure an arm on a seed, unless that was done."""
    file = args.out / f"{args.dataset}-{arm}-{seed}.json"
    here = trials.conditions(base, args.dataset, args.per_class)
    settings = trials.best(args.out, arm, here) or ARMS[arm].settings
    if file.exists():
        known = json.loads(file.read_text())
        asked = {"per_class": args.per_class, "queries_per_class": args.queries}
        # files of before have no checksum of the base
        asked |= {k: here[k] for k in trials.ORIGIN if k in known}
        if not trials.same(known["settings"], settings) or not trials.agrees(known, asked):
            raise ValueError(
                f"{file} was measured with other settings or another base; give another "
                "--out, or remove it"
            )
        print(f"{file.name}: measured before")
        return
    found = run(base, pool, arm, settings, seed, args.per_class, args.queries)
    origin = {
        **{k: here[k] for k in trials.ORIGIN},
        "parameters": sum(x.size for x in jax.tree.leaves(base.params)),
        "device": device(),
        "versions": versions(),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(found | origin, indent=1) + "\n")
    print(f"{file.name}: {found['final']:.3f}", flush=True)


if __name__ == "__main__":
    main()
