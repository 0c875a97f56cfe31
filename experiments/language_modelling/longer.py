"""Ten times the tokens of equal_budget.py: who uses its context, given time to learn to?

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope sweep experiments/language_modelling/longer.py --local 2 \\
        --set data.path=data/wikitext-2
    hope report runs/longer
    python experiments/length/positions.py --runs runs/longer

Models of equal_budget.py (beside this) after 0.8 M tokens predict a byte from a dozen before
it: at the end of a window their loss is hardly lower than at the twentieth byte. Here a few of
them, unchanged, at the rates that were best there, read 8.2 M bytes in windows of 512, which is
most of WikiText-2 once. "hope-linear" is HOPE with matrix memories (Eqs. 92-93), "hope-dot"
with the inner objective of Eq. 92.
"""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

from hope_jax.config import TrainConfig, grid, override

_EQUAL_BUDGET = runpy.run_path(str(Path(__file__).with_name("equal_budget.py")))
RATES = {
    "hope": 6e-3,
    "gated_delta_net": 3e-3,
    "mamba": 3e-3,
    "transformer": 1.5e-3,
    "titans": 3e-3,
    "ttt_linear": 3e-3,
    "lstm": 3e-3,
    "delta_net": 3e-3,
    "hope-dot": 6e-3,
    "hope-linear": 6e-3,
}
CHANGES = {
    "dot": {"model.mixer.objective": "dot"},
    "linear": {"model.mixer.memory": "linear"},
}


def get_config(variant: str = "hope") -> TrainConfig:
    """The run of one model."""
    if variant not in RATES:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(RATES)}")
    kind, _, change = variant.partition("-")
    changes = {
        "optim.lr": RATES[variant],
        "data.batch": 8,
        "data.length": 512,
        "steps": 2_000,
        "eval_every": 500,
        "checkpoint_every": 250,
        **CHANGES.get(change, {}),
    }
    return dataclasses.replace(
        override(_EQUAL_BUDGET["get_config"](kind), changes), name=variant
    )


finish = _EQUAL_BUDGET["finish"]


def sweep():
    """Every model, three seeds; one seed of all comes first."""
    yield from grid({("seed", "data.seed"): [0, 1, 2], "variant": [*RATES]})
