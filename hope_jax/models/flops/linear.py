"""Operations of matrix memories that are written by outer products, per token of one layer."""

from __future__ import annotations

from hope_jax.config import (
    CombaConfig,
    DeltaNetConfig,
    GatedDeltaNetConfig,
    LinearAttentionConfig,
    ModelConfig,
    RetNetConfig,
    RWKV7Config,
)


def _linear_attention(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    size = dim // mixer.heads
    width = size + (mixer.normaliser == "sum")  # a column for the sum of keys
    recurrence = _recurrence(size, width, min(mixer.chunk, length))
    return 4 * 2 * dim**2 + mixer.heads * recurrence


def _retnet(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    size, width = mixer.sizes(dim)
    values = 2 if mixer.gate == "none" else 3
    projections = 2 * dim * mixer.heads * (2 * size + values * width)
    return projections + mixer.heads * _recurrence(size, width, min(mixer.chunk, length))


def _delta_net(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    size, width = mixer.sizes(dim)
    values = 2 if mixer.gate == "none" else 3
    gates = 1 + (mixer.retention == "learned")
    projections = 2 * dim * mixer.heads * (2 * size + values * width + gates)
    chunk = min(mixer.chunk, length)
    return projections + mixer.heads * _recurrence(size, width, chunk, removal=True)


def _rwkv7(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    size, chunk = dim // mixer.heads, min(mixer.chunk, length)
    projections = 4 * 2 * dim**2 + 2 * 2 * dim * sum(mixer.ranks(dim).values())
    # Two keys read and two write: their scores, the read of the chunk's start and the update;
    # then what the scores weigh, and the system (see `_write`).
    per_head = 8 * chunk * size + 8 * size**2 + 8 * chunk * size + 2 / 3 * chunk**2
    return projections + mixer.heads * per_head


def _recurrence(size: int, width: int, chunk: int, removal: bool = False) -> float:
    """One head of `hope_jax.ops.linear_recurrence`, one token.

    Scores and what they weigh, the read of the chunk's start and the update; with removal
    the keys' scores, the system (see `_write`) and what the key reads.
    """
    flops = 2 * chunk * (size + width) + 2 * 2 * size * width
    if removal:
        flops += 2 * chunk * (size + width) + 2 / 3 * chunk**2 + 2 * size * width
    return flops


COUNTS = {
    CombaConfig: _delta_net,
    DeltaNetConfig: _delta_net,
    GatedDeltaNetConfig: _delta_net,
    LinearAttentionConfig: _linear_attention,
    RetNetConfig: _retnet,
    RWKV7Config: _rwkv7,
}
