"""Which runs can be one program."""

from __future__ import annotations

import json

from hope_jax.config import TrainConfig, to_dict
from hope_jax.training.workdir import flat

MAY_DIFFER = ("name", "seed", "data.seed", "optim.lr")


def common(config: TrainConfig) -> str:
    """What runs have to have in common to be one program, as text.

    >>> common(TrainConfig(seed=1)) == common(TrainConfig(seed=2))
    True
    """
    fields = flat(to_dict(config))
    return json.dumps({k: v for k, v in fields.items() if k not in MAY_DIFFER}, sort_keys=True)
