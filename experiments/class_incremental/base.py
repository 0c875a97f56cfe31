"""The language model that classes are taught to: a small Transformer, trained on WikiText-2.

    hope prepare data/wikitext-2-2k --input wiki.train.tokens \\
        --validation-input wiki.valid.tokens --tokenizer sentencepiece --vocab-size 2048
    hope train --config experiments/class_incremental/base.py \\
        --set data.path=data/wikitext-2-2k --workdir runs/class_incremental_base

A million parameters: four blocks of attention and a feed-forward layer. It reads 1.6 million
tokens, in six minutes of one CPU core, to a held-out loss of 3.66 nats per token. Nothing in
its training learns within a text: its feed-forward layers become levels only afterwards.
"""

from __future__ import annotations

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    """The run of the base."""
    return TrainConfig(
        name="class_incremental_plain",
        model=ModelConfig(
            vocab_size=2048,
            dim=128,
            depth=4,
            mixer=AttentionConfig(heads=4),
            cms=CMSConfig(periods=(1,)),
        ),
        data=DataConfig(batch=8, length=256),
        optim=OptimConfig(lr=3e-3, warmup=50, end_lr=0.05),
        steps=800,
        log_every=20,
        eval_every=200,
        eval_batches=8,
        checkpoint_every=100,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )
