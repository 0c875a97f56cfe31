"""Small models of every kind at equal parameters, for a laptop: bytes of the shipped plays.

    hope train --config experiments/small.py
    hope train --config experiments/small.py:hope_attention
    hope train --config experiments/small.py:transformer

Four layers of width 128, 800,000 parameters each: the hidden width of the feed-forward
levels is solved for. 3 M tokens in windows of 256.
"""

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
)
from hope_jax.models import match_budget

LEVELS = (1, 4, 16)
VARIANTS = {
    "hope": (SelfModifyingConfig(heads=2, chunk=32), LEVELS),
    "hope_attention": (AttentionConfig(heads=2), LEVELS),
    "transformer": (AttentionConfig(heads=2), (1,)),
}


def get_config(variant: str = "hope") -> TrainConfig:
    """The run; `variant` is "hope", "hope_attention" or "transformer"."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}; choose one of {sorted(VARIANTS)}")
    mixer, periods = VARIANTS[variant]
    model = ModelConfig(vocab_size=256, dim=128, depth=4, mixer=mixer, cms=CMSConfig(periods))
    return TrainConfig(
        name=f"small_{variant}",
        model=model,
        data=DataConfig(batch=12, length=256),
        optim=OptimConfig(lr=3e-3, warmup=100),
        steps=1_000,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as 0.8 M parameters allow."""
    return match_budget(config, 800_000)
