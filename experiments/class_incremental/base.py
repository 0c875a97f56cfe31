"""The language model that classes are taught to: a small Transformer, trained on WikiText-2.

    hope prepare data/wikitext-2-2k --input wiki.train.tokens \\
        --validation-input wiki.valid.tokens --tokenizer sentencepiece --vocab-size 2048
    hope train --config experiments/class_incremental/base.py \\
        --set data.path=data/wikitext-2-2k --workdir runs/class_incremental_base

A million parameters, four blocks of attention and a feed-forward layer. The variant "meta"
goes on from the plain one (`--set start=runs/class_incremental_base`) and is trained through
the updates of its feed-forward layers within a text, which the plain one never saw.
"""

from __future__ import annotations

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    InContextConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)

VARIANTS = {
    "plain": InContextConfig(),
    "meta": InContextConfig(chunks=(64,), blocks=3, stack="contiguous", lr=0.1),
}


def get_config(variant: str = "plain") -> TrainConfig:
    """The run of the plain base, or of the one that learned to learn."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}; give one of {', '.join(VARIANTS)}")
    plain = variant == "plain"
    return TrainConfig(
        name=f"class_incremental_{variant}",
        model=ModelConfig(
            vocab_size=2048,
            dim=128,
            depth=4,
            mixer=AttentionConfig(heads=4),
            cms=CMSConfig(periods=(1,), in_context=VARIANTS[variant]),
        ),
        data=DataConfig(batch=8, length=256),
        optim=OptimConfig(lr=3e-3 if plain else 1e-3, warmup=50, end_lr=0.05),
        steps=800 if plain else 200,
        log_every=20,
        eval_every=200,
        eval_batches=8,
        checkpoint_every=100,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )
