"""What is measured: the models, their shapes and the lengths."""

from __future__ import annotations

import dataclasses

from hope_jax.config import (
    MIXER_CONFIGS,
    AttentionConfig,
    CMSConfig,
    DataConfig,
    MixerConfig,
    ModelConfig,
    SelfModifyingConfig,
    TrainConfig,
)
from hope_jax.config.check import choose, require

REFERENCE = "transformer"  # what ratios are taken to
BASELINES = {
    name: config
    for name, config in MIXER_CONFIGS.items()
    if config not in (AttentionConfig, SelfModifyingConfig)
}
MODELS = ("hope", "hope_zero", "hope_momentum", "hope_attention", REFERENCE, *BASELINES)
# Their chunk is the number of tokens per parallel step, and any serves as well as another.
# That of others is part of what they compute, or has a best value that they start from.
ANY_CHUNK = ("comba", "delta_net", "gated_delta_net", "linear_attention", "retnet")
PERIODS = (1, 8, 64)  # CMS levels of the HOPE models


@dataclasses.dataclass(frozen=True)
class Settings:
    """One benchmark run; every model is measured on the same shapes."""

    models: tuple[str, ...] = ("hope", "hope_attention", REFERENCE)
    lengths: tuple[int, ...] = (512, 2048, 8192)  # tokens per sequence in training
    contexts: tuple[int, ...] = (512, 2048, 8192)  # tokens read before decoding
    rounds: int = 3  # measurements of each; the models take turns
    dim: int = 256
    depth: int = 4
    heads: int = 4
    chunk: int = 64
    batch: int = 4
    vocab_size: int = 256
    decode_tokens: int = 128
    dtype: str = "float32"

    def __post_init__(self):
        for model in self.models:
            choose("--models", model, *MODELS)
        for field in ("models", "lengths"):
            require(bool(getattr(self, field)), f"{field} is empty; name at least one")
        for field in ("rounds", "batch", "decode_tokens"):
            value = getattr(self, field)
            require(value >= 1, f"{field} is {value}; use at least 1")
        for field in ("lengths", "contexts"):
            for value in getattr(self, field):
                require(value >= 1, f"{field} names {value}; use at least 1")


QUICK = Settings(
    lengths=(128,),
    contexts=(128,),
    rounds=2,
    dim=64,
    depth=2,
    heads=2,
    chunk=32,
    batch=2,
    decode_tokens=32,
)


def model_config(name: str, settings: Settings) -> ModelConfig:
    """Configuration of the model `name`, one of `MODELS`.

    >>> model_config("transformer", Settings()).mixer.type
    'attention'
    """
    choose("model", name, *MODELS)
    heads, chunk = settings.heads, settings.chunk
    mixer: MixerConfig
    if name in BASELINES:
        known = {field.name for field in dataclasses.fields(BASELINES[name])}
        changes = {"heads": heads, **({"chunk": chunk} if name in ANY_CHUNK else {})}
        mixer = BASELINES[name](**{key: changes[key] for key in known & set(changes)})
    elif name in ("hope_attention", REFERENCE):
        mixer = AttentionConfig(heads=heads)
    else:
        changes = {
            "hope_momentum": {"momentum": "titans"},
            "hope_zero": {"decay_to": "zero"},
        }
        mixer = SelfModifyingConfig(heads=heads, chunk=chunk, **changes.get(name, {}))
    periods = PERIODS if name.startswith("hope") else (1,)
    return ModelConfig(
        vocab_size=settings.vocab_size,
        dim=settings.dim,
        depth=settings.depth,
        mixer=mixer,
        cms=CMSConfig(periods=periods),
        dtype=settings.dtype,
    )


def train_config(name: str, length: int, settings: Settings) -> TrainConfig:
    """The training step of the model `name` at one length, with the default AdamW."""
    return TrainConfig(
        name=f"bench_{name}",
        model=model_config(name, settings),
        data=DataConfig(batch=settings.batch, length=length),
    )
