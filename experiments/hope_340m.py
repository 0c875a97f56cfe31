"""HOPE at 340 M parameters: 15 B tokens, context 4,096, batches of 0.5 M tokens.

Depth, width and learning rate are those that Miras gives for 340 M (24 layers, width
1,024, 16 heads), batch, context and tokens those of Titans, which HOPE's paper points to;
warm-up over a tenth of the steps and decay to 1e-5 as in the TTT code. The paper states
no sizes of its own; the CMS width is chosen here to meet the parameter count.

Prepare text once, with a vocabulary of 32,000, and train:

    hope prepare data/web --input FOLDER --tokenizer sentencepiece --vocab-size 32000
    hope train --config experiments/hope_340m.py --set data.path=data/web

`experiments/hope_340m.py:transformer` and `...:hope_attention` are the same run with softmax
attention, at the same number of parameters within one percent.

Cost: 3.7e19 floating-point operations for HOPE by count (`hope describe`), about 130
chip-hours at 197 TFLOP/s and 40 % utilisation. Not run yet; to compare with, the paper
reports perplexity 26.05 on WikiText and 29.38 on LAMBADA in its short version.
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

HOPE = SelfModifyingConfig(heads=16)
ATTENTION = AttentionConfig(heads=16)
# Training steps per update: 1 M, 4 M and 16 M tokens, the range of the paper's Figure 5.
LEVELS = (2, 8, 32)

# mixer, periods, hidden width of all CMS levels together
VARIANTS = {
    "hope": (HOPE, LEVELS, 3072),
    "hope_attention": (ATTENTION, LEVELS, 2880),
    "transformer": (ATTENTION, (1,), 2880),
}


def get_config(variant: str = "hope") -> TrainConfig:
    """The run; `variant` is "hope", "hope_attention" or "transformer"."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}; choose one of {sorted(VARIANTS)}")
    mixer, periods, hidden = VARIANTS[variant]
    return TrainConfig(
        name=f"{variant}_340m",
        model=ModelConfig(
            vocab_size=32_000,
            vocab_multiple=128,
            dim=1024,
            depth=24,
            mixer=mixer,
            cms=CMSConfig(periods=periods, hidden=hidden),
            dtype="bfloat16",
            remat="block",
        ),
        data=DataConfig(batch=128, length=4096),
        optim=OptimConfig(lr=1.5e-3, end_lr=1e-5 / 1.5e-3, warmup=2_900, weight_decay=0.1),
        steps=28_600,
        eval_every=1_000,
        eval_batches=64,
        checkpoint_every=500,
    )
