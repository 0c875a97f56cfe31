"""MAD, six small tasks that tell mixers apart (Table 4 of the paper), and MQAR.

    hope sweep experiments/tasks/mad.py --local 2 --tune optim.lr
    hope report runs/mad --best optim.lr

A variant is a mixer and a task, such as "hope/fuzzy_recall". Sizes of the tasks are those of
MAD's baseline (Poli et al. 2024): 16 symbols, 128 tokens for recall, 256 for copying, 32 for
compression and memorization. Two blocks of width 64 with a feed-forward part that makes all
mixers equal in parameters, and examples that are never the same in place of 12,800 that are
read again and again. MQAR (Arora et al. 2023) has 16 pairs among 64 keys in 128 tokens.
"""

from __future__ import annotations

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
    ModelConfig,
    OptimConfig,
    RetNetConfig,
    RWKV7Config,
    SelfModifyingConfig,
    TitansConfig,
    TrainConfig,
    TTTLinearConfig,
    grid,
)
from hope_jax.config.tasks import (
    CompressionConfig,
    CopyingConfig,
    MemorizationConfig,
    MQARConfig,
    RecallConfig,
)
from hope_jax.data.tasks import make_task
from hope_jax.models import match_params

WIDTH, PARAMETERS = 64, 140_000
MIXERS = {
    "hope": SelfModifyingConfig(heads=1, chunk=16, value_expansion=2),
    "transformer": AttentionConfig(heads=2),
    "gated_delta_net": GatedDeltaNetConfig(heads=1),
    "delta_net": DeltaNetConfig(heads=1),
    "comba": CombaConfig(heads=1, initial_correction=0.02),
    "rwkv7": RWKV7Config(heads=1),
    "titans": TitansConfig(heads=1, chunk=16),
    "ttt_linear": TTTLinearConfig(heads=1),
    "dla": DLAConfig(heads=1, chunk=16),
    "retnet": RetNetConfig(heads=1),
    "linear_attention": LinearAttentionConfig(heads=1),
}
# task, and tokens of a text
TASKS = {
    "recall": (RecallConfig(), 128),
    "noisy_recall": (RecallConfig(noise=0.2), 128),
    "fuzzy_recall": (RecallConfig(motif=3), 128),
    "copying": (CopyingConfig(), 256),
    "compression": (CompressionConfig(), 33),
    "memorization": (MemorizationConfig(), 32),
    "mqar": (MQARConfig(pairs=16), 128),
}
TOKENS = 8192  # in a batch


def get_config(variant: str = "hope/recall") -> TrainConfig:
    """The run of one mixer on one task."""
    name, _, kind = variant.partition("/")
    if name not in MIXERS or kind not in TASKS:
        raise ValueError(
            f"variant {variant!r}; give MIXER/TASK, of {', '.join(MIXERS)} and "
            f"{', '.join(TASKS)}"
        )
    task, length = TASKS[kind]
    return TrainConfig(
        name=variant.replace("/", "-"),
        model=ModelConfig(
            vocab_size=len(make_task(task, length).symbols),
            dim=WIDTH,
            depth=2,
            mixer=MIXERS[name],
            cms=CMSConfig(periods=(1,)),
            reconstruct=kind == "compression",
        ),
        data=DataConfig(task=task, batch=TOKENS // length, length=length),
        optim=OptimConfig(lr=3e-3, warmup=50, end_lr=0.05),
        steps=600,
        eval_every=200,
        log_every=50,
        checkpoint_every=300,
        position_plot=False,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as the budget allows."""
    # without the embedding, which depends on the task
    budget = PARAMETERS + config.model.vocab_size * WIDTH
    return dataclasses.replace(config, model=match_params(config.model, budget))


def sweep(which: str = ""):
    """Every mixer on every task at three learning rates; `FILE:TASK` one task alone."""
    kinds = [which] if which else [*TASKS]
    variants = [f"{name}/{kind}" for kind in kinds for name in MIXERS]
    yield from grid({"variant": variants, "optim.lr": [1e-3, 3e-3, 1e-2]})
