"""Every mixer in the same language model: equal parameters, tokens, data and grid of rates.

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope sweep experiments/language_modelling/equal_budget.py --local 2 --tune optim.lr \\
        --set data.path=data/wikitext-2
    hope report runs/equal_budget --best optim.lr

For subwords prepare with `--tokenizer sentencepiece --vocab-size 4096` and name the file with
`:4k` behind it, and another `--workdir`; the embedding of 4,096 tokens comes on top of the
million parameters.

A variant is the `type` of a mixer ("-4k" behind it for subwords), except "transformer"
(attention), "hope" (self-modifying Titans with two feed-forward levels, of which the slower is
updated every fourth step) and "self_modifying" (the same with one); with "_zero" behind them
memories decay to zero, as in the paper. Width 128, four layers (two groups for Samba, which has
two layers in one), a million parameters: the hidden width of the feed-forward part is solved
for, to within 1 %. 0.8 M tokens in windows of 256, AdamW.

Choices are those of the published models where they do not depend on the width; HOPE's chunk
and the width of its values were chosen in trials (experiments/results/value_expansion).
Memories have two heads, so that a head is 64 wide as theirs are; attention has four. Windows
are a quarter of the context, because a window of all of it would be the Transformer.
"""

import dataclasses

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    CombaConfig,
    DataConfig,
    DeltaNetConfig,
    DLAConfig,
    GatedDeltaNetConfig,
    LinearAttentionConfig,
    LSTMConfig,
    MambaConfig,
    MemoraConfig,
    ModelConfig,
    OptimConfig,
    RetNetConfig,
    RWKV7Config,
    SambaConfig,
    SelfModifyingConfig,
    SlidingWindowConfig,
    SRWMConfig,
    TitansConfig,
    TitansMACConfig,
    TitansMAGConfig,
    TitansMALConfig,
    TrainConfig,
    TTTLinearConfig,
    TTTMLPConfig,
    grid,
)
from hope_jax.models import match_budget

PARAMETERS = 1_000_000
WIDTH = 128
WINDOW = 64
SELF_MODIFYING = SelfModifyingConfig(heads=2, chunk=16, value_expansion=2)
DECAY_TO_ZERO = dataclasses.replace(SELF_MODIFYING, decay_to="zero")
MIXERS = {
    "hope": SELF_MODIFYING,
    "transformer": AttentionConfig(heads=4),
    "gated_delta_net": GatedDeltaNetConfig(heads=2),
    "titans": TitansConfig(heads=2, chunk=16),
    "rwkv7": RWKV7Config(heads=2),
    "comba": CombaConfig(heads=2, initial_correction=0.02),
    "ttt_linear": TTTLinearConfig(heads=2),
    "samba": SambaConfig(heads=4, window=WINDOW),
    "titans_mag": TitansMAGConfig(heads=2, chunk=16, window=WINDOW),
    "delta_net": DeltaNetConfig(heads=2),
    "mamba": MambaConfig(),
    "titans_mal": TitansMALConfig(heads=2, chunk=16, window=WINDOW),
    "titans_mac": TitansMACConfig(heads=2, chunk=32),
    "retnet": RetNetConfig(heads=2),
    "self_modifying": SELF_MODIFYING,
    "hope_zero": DECAY_TO_ZERO,
    "self_modifying_zero": DECAY_TO_ZERO,
    "dla": DLAConfig(heads=2, chunk=16),
    "memora": MemoraConfig(heads=2),
    "linear_attention": LinearAttentionConfig(heads=2),
    "sliding_window": SlidingWindowConfig(heads=4, window=WINDOW),
    "ttt_mlp": TTTMLPConfig(heads=2),
    "lstm": LSTMConfig(),
    "srwm": SRWMConfig(heads=2),
}
LEVELS = {"hope": (1, 4), "hope_zero": (1, 4)}
DEPTH = {"samba": 2}


def get_config(variant: str = "hope") -> TrainConfig:
    """The run of one mixer."""
    kind = variant.removesuffix("-4k")
    if kind not in MIXERS:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(MIXERS)}")
    vocab_size = 256 if kind == variant else 4096
    model = ModelConfig(
        vocab_size=vocab_size,
        dim=WIDTH,
        depth=DEPTH.get(kind, 4),
        mixer=MIXERS[kind],
        cms=CMSConfig(periods=LEVELS.get(kind, (1,))),
    )
    return TrainConfig(
        name=variant,
        model=model,
        data=DataConfig(batch=4, length=256),
        optim=OptimConfig(lr=3e-3, warmup=80, end_lr=0.1),
        steps=800,
        log_every=10,
        eval_every=800,
        eval_batches=8,
        checkpoint_every=400,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as the budget allows; larger embeddings come on top."""
    return match_budget(config, PARAMETERS + (config.model.vocab_size - 256) * WIDTH)


def sweep(tokens: str = "bytes"):
    """Every mixer at three learning rates; `--tune optim.lr` goes on where the best is last."""
    if tokens not in ("bytes", "4k"):
        raise ValueError(f"sweep {tokens!r}; give bytes or 4k")
    variants = [kind if tokens == "bytes" else f"{kind}-4k" for kind in MIXERS]
    yield from grid({"variant": variants, "optim.lr": [1.5e-3, 3e-3, 6e-3]})
