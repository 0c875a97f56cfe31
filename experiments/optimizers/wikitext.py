"""Update rules side by side on the bytes of WikiText-2, for two models of equal size.

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope train --config experiments/optimizers/wikitext.py:transformer-m3 \\
        --set data.path=data/wikitext-2 --set optim.lr=6e-3
    hope sweep experiments/optimizers/wikitext.py --local 2 --tune optim.lr --seeds 2 \\
        --set data.path=data/wikitext-2
    hope report runs/wikitext --best optim.lr

A variant is MODEL-RULE, with MODEL "transformer" or "hope" and RULE the `type` of a rule, or
"m3_no_slow" or "m3_no_second_moment". Everything but the rule and the learning rate is the
same: two layers of width 128, about 450,000 parameters, 600 steps of 1,024 bytes; HOPE's
memories decay to zero, as in the paper (the project's default came later). A run takes
about a minute on one CPU core for the Transformer, two for HOPE.
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
from hope_jax.models import match_budget

MODELS = {
    "transformer": AttentionConfig(heads=4),
    "hope": SelfModifyingConfig(heads=2, chunk=32, decay_to="zero"),
}
RULES = {
    **{name: config() for name, config in RULE_CONFIGS.items()},
    "m3_no_slow": RULE_CONFIGS["m3"](alpha=0.0),
    "m3_no_second_moment": RULE_CONFIGS["m3"](second_moment="none"),
}


def get_config(variant: str = "transformer-adamw") -> TrainConfig:
    """The run of one model with one rule, e.g. "hope-m3"."""
    model, _, rule = variant.partition("-")
    if model not in MODELS or rule not in RULES:
        raise ValueError(
            f"variant {variant!r}; give MODEL-RULE with a model of {sorted(MODELS)} and a rule "
            f"of {sorted(RULES)}"
        )
    config = ModelConfig(vocab_size=256, dim=128, depth=2, mixer=MODELS[model])
    return TrainConfig(
        name=f"wikitext_{model}_{rule}",
        model=config,
        data=DataConfig(batch=8, length=128),
        optim=OptimConfig(rule=RULES[rule], lr=3e-3, warmup=60, end_lr=0.1),
        steps=600,
        log_every=10,
        eval_every=600,
        eval_batches=200,
        checkpoint_every=600,
        sample_tokens=0,
        position_plot=False,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as 0.45 M parameters allow."""
    return match_budget(config, 450_000)


def sweep():
    """Every rule on both models at five learning rates, a factor of two apart."""
    for rule in RULES:
        # AdamW's updates are smaller where they agree least
        first = 7.5e-4 if rule == "adamw" else 2.5e-3
        variants = [f"{model}-{rule}" for model in MODELS]
        yield from grid({"variant": variants, "optim.lr": [first * 2**i for i in range(5)]})
