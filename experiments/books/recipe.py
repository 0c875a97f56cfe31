"""Models that read books in the order of time: what is compared in `books/read.py`.

Arms: "hope" with feed-forward levels that are updated every 1, 8 and 64 steps, "hope_one_level"
with the same mixer and plain continued training of one level, and "transformer", plain
continued training of Transformer++. A million parameters each: the hidden width of the
feed-forward part is solved for, to within 1 %.
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
from hope_jax.models import match_budget

PARAMETERS = 1_000_000
HOPE = SelfModifyingConfig(heads=2, chunk=16, value_expansion=2)
ARMS = {
    "hope": (HOPE, (1, 8, 64)),
    "hope_one_level": (HOPE, (1,)),
    "transformer": (AttentionConfig(heads=4), (1,)),
}
LEARNING_RATES = {"hope": 3e-3, "hope_one_level": 3e-3, "transformer": 1.5e-3}


def get_config(arm: str = "hope") -> TrainConfig:
    """One period of books; `read.py` goes on from period to period."""
    if arm not in ARMS:
        raise ValueError(f"arm {arm!r}; choose one of {', '.join(ARMS)}")
    mixer, periods = ARMS[arm]
    return TrainConfig(
        name=arm,
        model=ModelConfig(dim=128, depth=4, mixer=mixer, cms=CMSConfig(periods=periods)),
        data=DataConfig(batch=4, length=256),
        # no decay of the rate: nobody knows which period is the last
        optim=OptimConfig(lr=LEARNING_RATES[arm], warmup=40, schedule="constant"),
        steps=400,
        eval_every=400,
        eval_batches=48,
        checkpoint_every=400,
        keep_checkpoints=1,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as the budget allows."""
    return match_budget(config, PARAMETERS)
