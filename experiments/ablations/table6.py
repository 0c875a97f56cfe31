"""Table 6 of the paper at small scale: HOPE without one of its parts, eight rows.

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope sweep experiments/ablations/table6.py --local 2 --tune optim.lr \\
        --set data.path=data/wikitext-2
    hope report runs/table6 --best optim.lr

A variant is a row: "full", or "no_" and what it is without. The full model has everything
that the table takes away: delta gradient descent, momentum, retention ("weight decay" in
the paper), several levels of feed-forward memory, and memories that generate k, v and q.
Retention is the paper's too, towards zero, and not the project's default.
Equal parameters, tokens and data; the protocol is that of
experiments/language_modelling/equal_budget.py.
"""

import dataclasses

from hope_jax.config import (
    CMSConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
    grid,
)
from hope_jax.models import match_budget

FULL = SelfModifyingConfig(
    heads=2,
    chunk=16,
    value_expansion=2,
    adaptive=("k", "v", "q", "eta", "alpha"),
    momentum="titans",
    decay_to="zero",
)
LEVELS = (1, 4)
ROWS = {
    "full": {},
    "no_dgd": {"rule": "gd"},
    "no_momentum": {"momentum": "none"},
    "no_weight_decay": {"retention": "none"},
    "no_cms": {},
    "no_k": {"adaptive": ("v", "q", "eta", "alpha")},
    "no_v": {"adaptive": ("k", "q", "eta", "alpha")},
    "no_q": {"adaptive": ("k", "v", "eta", "alpha")},
}


def get_config(variant: str = "full") -> TrainConfig:
    """The run of one row."""
    if variant not in ROWS:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(ROWS)}")
    mixer = dataclasses.replace(FULL, **ROWS[variant])
    # Without the system: one feed-forward layer, stepped with everything else.
    cms = CMSConfig(periods=(1,) if variant == "no_cms" else LEVELS)
    model = ModelConfig(vocab_size=256, dim=128, depth=4, mixer=mixer, cms=cms)
    return TrainConfig(
        name=f"table6_{variant}",
        model=model,
        data=DataConfig(batch=4, length=256),
        optim=OptimConfig(lr=3e-3, warmup=80, end_lr=0.1),
        steps=800,
        log_every=10,
        eval_every=800,
        eval_batches=8,
        checkpoint_every=400,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as 1 M parameters allow."""
    return match_budget(config, 1_000_000)


def sweep():
    """Every row at three learning rates."""
    yield from grid({"variant": [*ROWS], "optim.lr": [1.5e-3, 3e-3, 6e-3]})
