"""Models for experiments/length/positions.py: equal size, each at its best learning rate.

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope sweep experiments/length/models.py --local 2 --set data.path=data/wikitext-2 \\
        --workdir runs/length
    python experiments/length/positions.py --runs runs/length

A variant is that of experiments/language_modelling/equal_budget.py: a million parameters, bytes
of WikiText-2, trained in windows of 256. The learning rates are those that were best there.
"hope_zero" is HOPE whose memories decay to zero, as in the paper.
"""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

from hope_jax.config import TrainConfig, grid

_EQUAL_BUDGET = runpy.run_path(
    str(Path(__file__).parents[1] / "language_modelling" / "equal_budget.py")
)
RATES = {
    "hope": 6e-3,
    "hope_zero": 6e-3,
    "gated_delta_net": 3e-3,
    "titans": 3e-3,
    "ttt_linear": 3e-3,
    "samba": 1.5e-3,
    "transformer": 1.5e-3,
    "retnet": 3e-3,
}


def get_config(variant: str = "hope") -> TrainConfig:
    """The run of one mixer."""
    if variant not in RATES:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(RATES)}")
    config = _EQUAL_BUDGET["get_config"](variant)
    return dataclasses.replace(
        config, optim=dataclasses.replace(config.optim, lr=RATES[variant])
    )


finish = _EQUAL_BUDGET["finish"]


def sweep():
    """Seven mixers and HOPE's other decay, three seeds each."""
    yield from grid({"variant": [*RATES], ("seed", "data.seed"): [0, 1, 2]})
