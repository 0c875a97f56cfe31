"""HOPE at 6.7 B parameters: 300 B tokens, context 4,096, batches of 2 M tokens.

Nobody has trained this: the paper ends at 1.3 B. Depth, width and heads are those of common
models of this size (32 layers, width 4,096, 32 heads of 128 channels); the rest goes on from
`hope_1b.py` to a larger batch and a lower learning rate. The CMS width is chosen to meet the
parameter count.

Ask first whether it fits, then prepare text and train:

    hope aot --config experiments/hope_7b.py --topology v5p-256
    hope prepare data/web --input FOLDER --tokenizer sentencepiece --vocab-size 32000
    hope train --config experiments/hope_7b.py --set data.path=data/web --distributed

`experiments/hope_7b.py:transformer` and `...:hope_attention` are the same run with softmax
attention, at the same number of parameters within one percent.
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

HOPE = SelfModifyingConfig(heads=32)
ATTENTION = AttentionConfig(heads=32)
# Training steps per update: 2 M, 8 M and 32 M tokens.
LEVELS = (1, 4, 16)

# mixer, periods, hidden width of all CMS levels together
VARIANTS = {
    "hope": (HOPE, LEVELS, 12288),
    "hope_attention": (ATTENTION, LEVELS, 11136),
    "transformer": (ATTENTION, (1,), 11264),
}


def get_config(variant: str = "hope") -> TrainConfig:
    """The run; `variant` is "hope", "hope_attention" or "transformer"."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}; choose one of {sorted(VARIANTS)}")
    mixer, periods, hidden = VARIANTS[variant]
    return TrainConfig(
        name=f"{variant}_7b",
        model=ModelConfig(
            vocab_size=32_000,
            vocab_multiple=128,
            dim=4096,
            depth=32,
            mixer=mixer,
            cms=CMSConfig(periods=periods, hidden=hidden),
            dtype="bfloat16",
            remat="block",
        ),
        data=DataConfig(batch=512, length=4096),
        optim=OptimConfig(lr=3e-4, end_lr=0.1, warmup=2_000, weight_decay=0.1),
        steps=143_000,
        eval_every=1_000,
        eval_batches=16,
        checkpoint_every=500,
    )
