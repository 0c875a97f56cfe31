"""Does a small HOPE stay finite at three times the default learning rate?

    hope train --config experiments/stability.py

5,000 steps on the shipped plays with the full mixer: all memories adapt, momentum is on, the
levels of the CMS have different periods. Steps that were not finite are skipped and counted;
`skipped_steps` in summary.json is the answer.

Time: about 15 minutes on 2 CPU cores.
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
        name="stability",
        model=ModelConfig(
            dim=64,
            depth=2,
            mixer=SelfModifyingConfig(heads=2, chunk=32, momentum="titans"),
            cms=CMSConfig(periods=(1, 4, 16)),
        ),
        data=DataConfig(batch=4, length=128),
        optim=OptimConfig(lr=3 * OptimConfig().lr),
        steps=5_000,
        log_every=50,
        eval_every=1_000,
        checkpoint_every=1_000,
    )
