"""Configuration: frozen dataclasses, strict overrides, JSON."""

from hope_jax.config.in_context import InContextConfig
from hope_jax.config.linear_mixers import (
    CombaConfig,
    DeltaNetConfig,
    GatedDeltaNetConfig,
    LinearAttentionConfig,
    RetNetConfig,
)
from hope_jax.config.lstm import LSTMConfig
from hope_jax.config.mamba import MambaConfig, SambaConfig
from hope_jax.config.memora import MemoraConfig
from hope_jax.config.mesh import MeshConfig
from hope_jax.config.mixers import (
    MIXER_CONFIGS,
    AttentionConfig,
    MixerConfig,
    SelfModifyingConfig,
)
from hope_jax.config.model import CMSConfig, ModelConfig
from hope_jax.config.optim import LevelConfig, OptimConfig
from hope_jax.config.overrides import (
    from_dict,
    from_json,
    override,
    parse_assignments,
    to_dict,
    to_json,
)
from hope_jax.config.rope import RopeScalingConfig
from hope_jax.config.rules import (
    RULE_CONFIGS,
    AdamWRule,
    DeepMomentumRule,
    DeltaMomentumRule,
    M3Rule,
    MuonRule,
    RuleConfig,
)
from hope_jax.config.rwkv7 import RWKV7Config
from hope_jax.config.sliding_window import SlidingWindowConfig
from hope_jax.config.srwm import SRWMConfig
from hope_jax.config.sweeps import grid
from hope_jax.config.tasks import TASK_CONFIGS, TaskConfig
from hope_jax.config.titans import (
    DeepMemoryConfig,
    DLAConfig,
    TitansConfig,
    TitansMACConfig,
    TitansMAGConfig,
    TitansMALConfig,
)
from hope_jax.config.train import DataConfig, TrainConfig
from hope_jax.config.ttt import TTTLinearConfig, TTTMLPConfig

__all__ = [
    "MIXER_CONFIGS",
    "RULE_CONFIGS",
    "TASK_CONFIGS",
    "AdamWRule",
    "AttentionConfig",
    "CMSConfig",
    "CombaConfig",
    "DLAConfig",
    "DataConfig",
    "DeepMemoryConfig",
    "DeepMomentumRule",
    "DeltaMomentumRule",
    "DeltaNetConfig",
    "InContextConfig",
    "GatedDeltaNetConfig",
    "LSTMConfig",
    "LevelConfig",
    "LinearAttentionConfig",
    "M3Rule",
    "MambaConfig",
    "MeshConfig",
    "MemoraConfig",
    "MixerConfig",
    "ModelConfig",
    "MuonRule",
    "OptimConfig",
    "RWKV7Config",
    "RetNetConfig",
    "RopeScalingConfig",
    "RuleConfig",
    "SambaConfig",
    "SRWMConfig",
    "SelfModifyingConfig",
    "SlidingWindowConfig",
    "TTTLinearConfig",
    "TTTMLPConfig",
    "TaskConfig",
    "TitansConfig",
    "TitansMACConfig",
    "TitansMAGConfig",
    "TitansMALConfig",
    "TrainConfig",
    "from_dict",
    "from_json",
    "grid",
    "override",
    "parse_assignments",
    "to_dict",
    "to_json",
]
