"""Configuration: frozen dataclasses, strict overrides, JSON."""

from hope_jax.config.mixers import (
    MIXER_CONFIGS,
    AttentionConfig,
    MixerConfig,
    SelfModifyingConfig,
)
from hope_jax.config.model import CMSConfig, ModelConfig
from hope_jax.config.overrides import (
    from_dict,
    from_json,
    override,
    parse_assignments,
    to_dict,
    to_json,
)
from hope_jax.config.train import DataConfig, OptimConfig, TrainConfig

__all__ = [
    "MIXER_CONFIGS",
    "AttentionConfig",
    "CMSConfig",
    "DataConfig",
    "MixerConfig",
    "ModelConfig",
    "OptimConfig",
    "SelfModifyingConfig",
    "TrainConfig",
    "from_dict",
    "from_json",
    "override",
    "parse_assignments",
    "to_dict",
    "to_json",
]
