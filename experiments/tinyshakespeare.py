"""Tiny Shakespeare with the budget of nanoGPT's CPU recipe (published loss: 1.88).

    hope prepare data/tinyshakespeare --input input.txt
    hope train --config experiments/tinyshakespeare.py --set data.path=data/tinyshakespeare
    hope train --config experiments/tinyshakespeare.py:transformer \\
        --set data.path=data/tinyshakespeare

`input.txt` is the file that TFDS records as tiny_shakespeare (1,115,394 bytes); its last
tenth is held out. Both models have four layers of width 128, about 800,000 parameters and
2,000 steps of 768 tokens: 12 windows of 64 for the Transformer, as in the original, and
3 windows of 256 for HOPE. Batches are small, so that both learn from every token once. HOPE's
memories decay to zero here, as in the paper; the project's default came later.

Cost: about 10 minutes of one CPU core for HOPE, 3 for the Transformer.
"""

from hope_jax.config import (
    AttentionConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
)
from hope_jax.models import match_budget

VARIANTS = {
    "hope": (SelfModifyingConfig(heads=2, decay_to="zero"), DataConfig(batch=3, length=256)),
    "transformer": (AttentionConfig(heads=4), DataConfig(batch=12, length=64)),
}


def get_config(variant: str = "hope") -> TrainConfig:
    """The run; `variant` is "hope" or "transformer"."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}; choose one of {sorted(VARIANTS)}")
    mixer, data = VARIANTS[variant]
    model = ModelConfig(vocab_size=256, dim=128, depth=4, mixer=mixer)
    return TrainConfig(
        name=f"tinyshakespeare_{variant}",
        model=model,
        data=data,
        optim=OptimConfig(lr=3e-3, warmup=100, b2=0.99, end_lr=0.05),
        steps=2_000,
        log_every=50,
        eval_every=500,
        eval_batches=64,
        checkpoint_every=500,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as 0.8 M parameters allow."""
    return match_budget(config, 800_000)
