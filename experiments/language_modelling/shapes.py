"""The three nearest rivals in other shapes, at the same budget: is each in its best?

    hope sweep experiments/language_modelling/shapes.py --local 2 \\
        --set data.path=data/wikitext-2
    hope report runs/shapes

The comparison at one size (equal_budget.py beside this) has one shape for all: four layers, two
heads, values twice as wide as keys. HOPE pays more for its mixer than the others, and has less
left for the feed-forward part. Here HOPE, Gated DeltaNet and Mamba, which came out closest, get
more heads, wider values (or a longer state) and fewer layers, at the rate that was best for
each; parameters, tokens and data are those of equal_budget.py. HOPE's memories decay to zero,
as in the paper; the project's default came later.
"""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

from hope_jax.config import TrainConfig, grid, override

_EQUAL_BUDGET = runpy.run_path(str(Path(__file__).with_name("equal_budget.py")))
RATES = {"hope": 6e-3, "gated_delta_net": 3e-3, "mamba": 3e-3}
HEADS, VALUES, DEPTH = "model.mixer.heads", "model.mixer.value_expansion", "model.depth"
STATE = "model.mixer.state_size"
SHAPES = {
    "hope": {},
    "hope-heads_4-values_3": {HEADS: 4, VALUES: 3},
    "hope-heads_4-values_4": {HEADS: 4, VALUES: 4},
    "hope-depth_3-values_4": {DEPTH: 3, VALUES: 4},
    "hope-depth_3-heads_4-values_4": {DEPTH: 3, HEADS: 4, VALUES: 4},
    "gated_delta_net": {},
    "gated_delta_net-values_4": {VALUES: 4.0},
    "gated_delta_net-depth_3": {DEPTH: 3},
    "gated_delta_net-depth_3-values_4": {DEPTH: 3, VALUES: 4.0},
    "mamba": {},
    "mamba-state_64": {STATE: 64},
    "mamba-depth_3": {DEPTH: 3},
    "mamba-depth_5": {DEPTH: 5},
    "gated_delta_net-heads_4": {HEADS: 4},
    "gated_delta_net-heads_4-values_3": {HEADS: 4, VALUES: 3.0},
    "hope-heads_8-values_4": {HEADS: 8, VALUES: 4},
    "hope-linear-values_4": {"model.mixer.memory": "linear", VALUES: 4},
    "hope-linear-depth_3-values_4": {"model.mixer.memory": "linear", DEPTH: 3, VALUES: 4},
}


def get_config(variant: str = "hope") -> TrainConfig:
    """The run of one model in one shape."""
    if variant not in SHAPES:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(SHAPES)}")
    kind = variant.partition("-")[0]
    changes = {"optim.lr": RATES[kind], **SHAPES[variant]}
    base = "hope_zero" if kind == "hope" else kind
    return dataclasses.replace(
        override(_EQUAL_BUDGET["get_config"](base), changes), name=variant
    )


finish = _EQUAL_BUDGET["finish"]


def sweep():
    """Every shape, three seeds."""
    yield from grid({"variant": [*SHAPES], ("seed", "data.seed"): [0, 1, 2]})
