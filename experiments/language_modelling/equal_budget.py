"""Every mixer in the same language model: equal parameters, tokens, data and tuning.

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope sweep experiments/language_modelling/equal_budget.py --list
    hope train --config experiments/language_modelling/equal_budget.py:gated_delta_net \\
        --set data.path=data/wikitext-2

A variant is the `type` of a mixer, "transformer" for attention, or "hope" for self-modifying
Titans with several levels of feed-forward memory. Width 128, four layers, a million
parameters: the hidden width of the feed-forward part is solved for, to within 1 %.
"""

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    CombaConfig,
    DataConfig,
    DeltaNetConfig,
    GatedDeltaNetConfig,
    LinearAttentionConfig,
    ModelConfig,
    OptimConfig,
    RetNetConfig,
    SelfModifyingConfig,
    SlidingWindowConfig,
    TrainConfig,
    TTTLinearConfig,
    TTTMLPConfig,
    grid,
)
from hope_jax.models import match_params

PARAMETERS = 1_000_000
HOPE = SelfModifyingConfig(heads=2, chunk=32)
MIXERS = {
    "hope": HOPE,
    "transformer": AttentionConfig(heads=4),
    "sliding_window": SlidingWindowConfig(heads=4, window=64),
    "linear_attention": LinearAttentionConfig(heads=2),
    "retnet": RetNetConfig(heads=2),
    "delta_net": DeltaNetConfig(heads=2),
    "gated_delta_net": GatedDeltaNetConfig(heads=2),
    "comba": CombaConfig(heads=2, initial_correction=0.02),
    "ttt_linear": TTTLinearConfig(heads=2),
    "ttt_mlp": TTTMLPConfig(heads=2),
}
LEVELS = {"hope": (1,)}


def get_config(variant: str = "hope") -> TrainConfig:
    """The run of one mixer."""
    if variant not in MIXERS:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(MIXERS)}")
    cms = CMSConfig(periods=LEVELS.get(variant, (1,)))
    model = ModelConfig(vocab_size=256, dim=128, depth=4, mixer=MIXERS[variant], cms=cms)
    return TrainConfig(
        name=variant,
        model=match_params(model, PARAMETERS),
        data=DataConfig(batch=4, length=256),
        optim=OptimConfig(lr=3e-3, warmup=80, end_lr=0.1),
        steps=800,
        log_every=10,
        eval_every=800,
        eval_batches=200,
        checkpoint_every=400,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )


def sweep():
    """Every mixer at several learning rates."""
    yield from grid({"variant": [*MIXERS], "optim.lr": [1.5e-3, 3e-3, 6e-3]})
