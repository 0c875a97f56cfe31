"""How many levels, and how slow: the axes of the paper's Figure 7, in language modelling.

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope sweep experiments/ablations/levels.py --local 2 --set data.path=data/wikitext-2
    hope report runs/levels

A variant is the periods of the Continuum Memory System, in training steps: "1-4-16" has three
levels, of which the slowest is updated every sixteenth step on the sum of its gradients. Equal
parameters, tokens and data; the protocol is that of
experiments/language_modelling/equal_budget.py, at the rate that was best there for HOPE.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from hope_jax.config import TrainConfig, grid, override

_EQUAL_BUDGET = runpy.run_path(
    str(Path(__file__).parents[1] / "language_modelling" / "equal_budget.py")
)
PERIODS = ("1", "1-4", "1-16", "1-64", "1-4-16", "1-8-64", "1-4-16-64")


def get_config(variant: str = "1-4") -> TrainConfig:
    """The run of one chain of levels."""
    if variant not in PERIODS:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(PERIODS)}")
    periods = tuple(map(int, variant.split("-")))
    changes = {"name": f"levels_{variant}", "model.cms.periods": periods, "optim.lr": 6e-3}
    return override(_EQUAL_BUDGET["get_config"]("hope"), changes)


finish = _EQUAL_BUDGET["finish"]


def sweep():
    """Every chain, three seeds."""
    yield from grid({"variant": PERIODS, ("seed", "data.seed"): [0, 1, 2]})
