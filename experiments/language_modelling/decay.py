"""Where HOPE's memories decay to: zero, as the paper writes it, or their initial values.

    hope sweep experiments/language_modelling/decay.py --local 2 \\
        --set data.path=data/wikitext-2
    hope report runs/decay
    python experiments/length/positions.py --runs runs/decay

HOPE with two feed-forward levels as in equal_budget.py beside this, and "hope_zero", the same
with a decay to zero, each at the rate that is best for it; neither has a parameter more.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from hope_jax.config import TrainConfig, grid, override

_EQUAL_BUDGET = runpy.run_path(str(Path(__file__).with_name("equal_budget.py")))
VARIANTS = ("hope", "hope_zero")


def get_config(variant: str = "hope") -> TrainConfig:
    """The run of one of the two."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(VARIANTS)}")
    return override(_EQUAL_BUDGET["get_config"](variant), {"optim.lr": 6e-3})


finish = _EQUAL_BUDGET["finish"]


def sweep():
    """Both, three seeds."""
    yield from grid({"variant": [*VARIANTS], ("seed", "data.seed"): [0, 1, 2]})
