"""Update rules side by side on the bytes of WikiText-2, for two models of equal size.

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope train --config experiments/optimizers/wikitext.py:transformer-m3 \\
        --set data.path=data/wikitext-2 --set optim.lr=6e-3

A variant is MODEL-RULE, with MODEL "transformer" or "hope" and RULE the `type` of a rule.
Everything but the rule and the learning rate is the same: two layers of width 128, about
450,000 parameters, 600 steps of 1,024 bytes. `hope sweep` on this file trains all of
them at five learning rates; `sweep.py` beside it also goes on beyond the end of a row of rates,
and trains the best with more seeds.
"""

from hope_jax.config import (
    RULE_CONFIGS,
    AttentionConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
    grid,
)
from hope_jax.models import match_params

MODELS = {
    "transformer": AttentionConfig(heads=4),
    "hope": SelfModifyingConfig(heads=2, chunk=32),
}


def get_config(variant: str = "transformer-adamw") -> TrainConfig:
    """The run of one model with one rule, e.g. "hope-m3"."""
    model, _, rule = variant.partition("-")
    if model not in MODELS or rule not in RULE_CONFIGS:
        raise ValueError(
            f"variant {variant!r}; give MODEL-RULE with a model of {sorted(MODELS)} and a rule "
            f"of {sorted(RULE_CONFIGS)}"
        )
    config = ModelConfig(vocab_size=256, dim=128, depth=2, mixer=MODELS[model])
    return TrainConfig(
        name=f"wikitext_{model}_{rule}",
        model=match_params(config, 450_000),
        data=DataConfig(batch=8, length=128),
        optim=OptimConfig(rule=RULE_CONFIGS[rule](), lr=3e-3, warmup=60, end_lr=0.1),
        steps=600,
        log_every=10,
        eval_every=600,
        eval_batches=200,
        checkpoint_every=600,
        sample_tokens=0,
        position_plot=False,
    )


def sweep():
    """Every rule on both models at five learning rates, a factor of two apart."""
    for rule in RULE_CONFIGS:
        first = 7.5e-4 if rule == "adamw" else 2.5e-3
        variants = [f"{model}-{rule}" for model in MODELS]
        yield from grid({"variant": variants, "optim.lr": [first * 2**i for i in range(5)]})
