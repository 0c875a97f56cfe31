"""Operations of Titans and deep linear attention, per token of one layer."""

from __future__ import annotations

from hope_jax.config import (
    DLAConfig,
    ModelConfig,
    TitansConfig,
    TitansMACConfig,
    TitansMAGConfig,
    TitansMALConfig,
)
from hope_jax.config.titans import DeepMemoryConfig
from hope_jax.models.flops.attention import sliding_window


def _titans(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    projections = 4 + (mixer.gate != "none")
    return 2 * projections * dim**2 + _deep_memory(mixer, dim, length)


def _titans_mag(config: ModelConfig, length: int) -> float:
    """Projections of a memory beside attention over a window and to its prefix."""
    mixer, dim = config.mixer, config.dim
    attention = sliding_window(config, length) + 2 * 2 * dim * mixer.persistent
    prefix = 2 * 2 * dim**2 * mixer.persistent / length
    return attention + prefix + 2 * 3 * dim**2 + _deep_memory(mixer, dim, length)


def _titans_mac(config: ModelConfig, length: int) -> float:
    """Attention in whole segments, to tokens and to retrievals; see `TitansMAC`."""
    mixer, dim = config.mixer, config.dim
    # queries, keys, values, what the memory is asked; keys and values of retrievals; what
    # the memory is written with and asked again; out
    projections = 4 + 2 + 3 + 1 + 2 * mixer.persistent / length
    attention = 2 * 2 * dim * (2 * mixer.chunk + mixer.persistent)
    sizes = mixer.sizes(dim)
    retrieval = 2 * mixer.heads * sum(a * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    flops = 2 * dim**2 * projections + attention + retrieval
    return flops + _deep_memory(mixer, dim, mixer.chunk)


def _titans_mal(config: ModelConfig, length: int) -> float:
    """The same, and what the memory reads has a projection and maybe a gate of its own."""
    own = 1 + (config.mixer.gate != "none")
    return _titans_mag(config, length) + own * 2 * config.dim**2


def _deep_memory(mixer: DeepMemoryConfig, dim: int, length: int) -> float:
    """The projections to gates, and one token of `hope_jax.ops.deep_memory`."""
    chunk, momentum = min(mixer.chunk, length), mixer.momentum == "titans"
    gates = 1 + (mixer.retention == "learned") + momentum
    per_head = 2 * dim * gates
    if momentum:  # gates of the weights times those of the momentum
        per_head += 2 * chunk + 2
    sizes = mixer.sizes(dim)
    for index, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        # the key, its gradient's way back, the query, the step of the weights
        products = 3 + (index > 0) + 2 * momentum  # momentum is read and stepped too
        products += mixer.decay_to == "initial"  # the query, in what weights decay to
        per_head += products * 2 * inputs * outputs + 2 * chunk * (inputs + outputs)
    return mixer.heads * per_head


COUNTS = {
    DLAConfig: _titans,
    TitansConfig: _titans,
    TitansMACConfig: _titans_mac,
    TitansMAGConfig: _titans_mag,
    TitansMALConfig: _titans_mal,
}
