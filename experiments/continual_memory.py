"""Does it remember? Facts are read, the context is dropped, and questions come.

    python experiments/continual_memory.py train cms --seed 0           # and the other arms
    python experiments/continual_memory.py train frozen_cms --seed 0
    python experiments/continual_memory.py train transformer --seed 0
    python experiments/continual_memory.py train transformer --steps 4000 --seed 0
    python experiments/continual_memory.py measure --seed 0
    python experiments/continual_memory.py hostile --seed 0
    python experiments/continual_memory.py report

Arms have one size. `cms` learns within a text, by a CMS level that is updated every 16 tokens
and was trained through these updates, over Gated DeltaNet as the sequence memory;
`cms_self_modifying` is the same over HOPE's own. `frozen_cms` is `cms` without learning within
a text, and `transformer` is Transformer++. Names, values and sentences of the test are not
those of the training. Training goes on where it stopped, and takes 20 minutes for `cms` on one
CPU core; results go to experiments/results/continual_memory.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from continual.arms import HELP, STEPS
from continual.hostile import attacks
from continual.measure import measure
from continual.meta_train import train
from continual.report import report

from hope_jax.checkpoint.whole_file import write_whole

OUT = Path(__file__).resolve().parent / "results" / "continual_memory"


def main() -> None:
    """Train, measure or report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/continual_memory"))
    steps = parser.add_subparsers(dest="do", required=True)
    training = steps.add_parser("train", help="train one arm")
    training.add_argument(
        "arm", choices=HELP, help="; ".join(f"{n}: {t}" for n, t in HELP.items())
    )
    training.add_argument(
        "--steps", type=int, default=STEPS, help=f"another number than {STEPS:,} is an arm too"
    )
    measuring = steps.add_parser("measure", help="measure the arms of one seed")
    measuring.add_argument("--rows", type=int, default=32, help="streams per point")
    measuring.add_argument("--sleepers", type=int, default=8, help="streams that sleep")
    steps.add_parser("report", help="table and plots of all seeds that were measured")
    hostile = steps.add_parser("hostile", help="200,000 hostile tokens, by limits of streams")
    for command in (training, measuring, hostile):
        command.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.do == "report":
        print(report(OUT))
        return
    folder = args.runs / f"seed_{args.seed}"
    if args.do == "train":
        name = args.arm if args.steps == STEPS else f"{args.arm}_{args.steps}"
        train(args.arm, folder / name, args.steps, args.seed)
        return
    OUT.mkdir(parents=True, exist_ok=True)
    if args.do == "measure":
        file = OUT / f"seed_{args.seed}.json"
        before = json.loads(file.read_text()) if file.exists() else None
        try:
            found = measure(folder, args.seed, args.rows, args.sleepers, before)
        except ValueError as error:
            raise SystemExit(f"nothing was measured: {error}") from None
    else:
        file = OUT / f"hostile_{args.seed}.json"
        found = attacks(folder / "cms")
    write_whole(file, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
