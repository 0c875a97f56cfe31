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

PERIODS = ("1", "1-4", "1-16", "1-64", "1-4-16", "1-8-64", "1-4-16-64")


def get_config(variant: str = "1-4") -> TrainConfig:
    """The run of one chain of levels."""
    if variant not in PERIODS:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(PERIODS)}")
    model = ModelConfig(
        vocab_size=256,
        dim=128,
        depth=4,
        mixer=SelfModifyingConfig(heads=2, chunk=16, value_expansion=2),
        cms=CMSConfig(periods=tuple(map(int, variant.split("-")))),
    )
    return TrainConfig(
        name=f"levels_{variant}",
        model=model,
        data=DataConfig(batch=4, length=256),
        optim=OptimConfig(lr=6e-3, warmup=80, end_lr=0.1),
        steps=800,
        eval_every=800,
        eval_batches=8,
        checkpoint_every=400,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as the budget allows."""
    return match_budget(config, 1_000_000)


def sweep():
    """Every chain, three seeds."""
    yield from grid({"variant": PERIODS, ("seed", "data.seed"): [0, 1, 2]})
