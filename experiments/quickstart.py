"""Quickstart: a small HOPE learns to write plays, on a laptop.

    hope train --config experiments/quickstart.py

Text: the plays that ship with the package, byte by byte. The fast memories rewrite
themselves as they read, and two of the three parts of each feed-forward layer are slow:
they are updated every 4th and every 16th step, on what those steps taught together.

Time: 5 to 20 minutes on 2 CPU cores. Expected: well below the byte trigram model that is
printed beside it at the end, and a held-out loss that is higher without memory writes.
The run is in runs/quickstart; the same command goes on if it is interrupted.
"""

from hope_jax.config import (
    CMSConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    """The configuration of the run."""
    return TrainConfig(
        name="quickstart",
        model=ModelConfig(
            dim=128,
            depth=4,
            mixer=SelfModifyingConfig(heads=2),
            cms=CMSConfig(periods=(1, 4, 16)),
        ),
        data=DataConfig(batch=4, length=256),
        optim=OptimConfig(lr=3e-3, warmup=60),
        steps=1_200,
        log_every=25,
        eval_every=200,
        eval_batches=16,
        checkpoint_every=200,
    )
