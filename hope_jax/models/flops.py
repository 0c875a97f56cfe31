"""Floating-point operations of a model, by component, from its configuration alone.

Matrix products are counted, two operations per multiply-add; element-wise work, norms
and short convolutions are not. That is the convention of model FLOP utilisation, so
recomputation in the backward pass does not count either.
"""

from __future__ import annotations

import dataclasses

from hope_jax.config import (
    AttentionConfig,
    CombaConfig,
    DeepMemoryConfig,
    DeltaNetConfig,
    DLAConfig,
    GatedDeltaNetConfig,
    LinearAttentionConfig,
    LSTMConfig,
    MambaConfig,
    MemoraConfig,
    ModelConfig,
    RetNetConfig,
    RWKV7Config,
    SambaConfig,
    SelfModifyingConfig,
    SlidingWindowConfig,
    SRWMConfig,
    TitansConfig,
    TitansMACConfig,
    TitansMAGConfig,
    TitansMALConfig,
    TTTLinearConfig,
    TTTMLPConfig,
)
from hope_jax.layers.continuum import split_hidden
from hope_jax.ops.memory import MemorySpec


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations per token of one forward pass over a sequence, averaged over it."""

    mixer: float
    cms: float
    head: float

    @property
    def forward(self) -> float:
        """All components."""
        return self.mixer + self.cms + self.head

    @property
    def training(self) -> float:
        """Forward and backward; the backward pass costs twice the forward."""
        return 3 * self.forward


def flops_per_token(config: ModelConfig, length: int) -> Flops:
    """Operations per token for sequences of `length` tokens.

    Attention depends on the length; memories on the chunk instead.

    >>> small = ModelConfig(dim=64, depth=2, mixer=AttentionConfig())
    >>> flops_per_token(small, 128).head
    32768.0
    """
    dim = config.dim
    hidden = sum(split_hidden(config.cms_hidden, len(config.cms.periods)))
    mixer = _MIXERS[type(config.mixer)](config, length)
    return Flops(
        mixer=float(config.depth * mixer),
        cms=float(config.depth * _feed_forward(config, hidden)),
        head=float(2 * dim * config.vocab_size),
    )


def _attention(config: ModelConfig, length: int) -> float:
    projections = 4 * 2 * config.dim**2
    seen = (length + 1) / 2  # keys that a causal query sees, on average
    return projections + 2 * 2 * config.dim * seen


def _mamba(config: ModelConfig, length: int) -> float:
    """The scan itself is element-wise; only what surrounds it is counted."""
    del length
    mixer, dim = config.mixer, config.dim
    channels, rank = mixer.channels(dim), mixer.rank(dim)
    return 2 * channels * (3 * dim + 2 * rank + 2 * mixer.state_size)


def _samba(config: ModelConfig, length: int) -> float:
    mlp = _feed_forward(config, config.cms_hidden)
    return _mamba(config, length) + mlp + _sliding_window(config, length)


def _feed_forward(config: ModelConfig, hidden: int) -> float:
    products = 3 if config.cms.activation == "swiglu" else 2
    return 2 * products * config.dim * hidden


def _sliding_window(config: ModelConfig, length: int) -> float:
    projections = 4 * 2 * config.dim**2
    full = min(length, config.mixer.window)  # tokens whose window reaches the start
    seen = (full * (full + 1) / 2 + (length - full) * full) / length
    return projections + 2 * 2 * config.dim * seen


def _ttt(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    size, chunk = dim // mixer.heads, min(mixer.chunk, length)
    hidden = None
    if isinstance(mixer, TTTMLPConfig):
        hidden = 4 * size if mixer.hidden is None else mixer.hidden
    layers = [(size, hidden), (hidden, size)] if hidden else [(size, size)]
    per_head = 0
    for index, (inputs, outputs) in enumerate(layers):
        # the key, the query, the step of the weights, and the gradient's way back
        products = 3 + (index > 0)
        per_head += products * 2 * inputs * outputs + 2 * chunk * (inputs + outputs)
    return 4 * 2 * dim**2 + 2 * dim * mixer.heads + mixer.heads * per_head


def _titans(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    projections = 4 + (mixer.gate != "none")
    return 2 * projections * dim**2 + _deep_memory(mixer, dim, length)


def _titans_mag(config: ModelConfig, length: int) -> float:
    """Projections of a memory beside attention over a window and to its prefix."""
    mixer, dim = config.mixer, config.dim
    attention = _sliding_window(config, length) + 2 * 2 * dim * mixer.persistent
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


def _memora(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    heads, size, chunk = mixer.heads, dim // mixer.heads, min(mixer.chunk, length)
    hidden = mixer.hidden_size(dim)
    # of both layers: the key, the query, the gradient's way back through one, the step
    products = 2 + 2 + 1 + 2 + 3 / chunk  # the lag token has a key and a way back too
    per_head = products * 2 * size * hidden
    if mixer.read == "linear":
        per_head += 2 * 2 * chunk * (size + hidden)
    values = 4 if mixer.gate == "none" else 5
    gates = mixer.heads  # retention
    if mixer.rate_rank is None:
        gates += mixer.heads
    else:
        gates += 2 * mixer.rate_rank
    return values * 2 * dim**2 + 2 * dim * gates + heads * per_head


def _self_modifying(config: ModelConfig, length: int) -> float:
    del length
    # only here: the configuration of other mixers can be counted without this module
    from hope_jax.layers.self_modifying import recurrence_spec

    mixer, dim = config.mixer, config.dim
    size = dim // mixer.heads
    spec = recurrence_spec(mixer, size)
    adaptive = {name for group in spec.groups for name in group.spec.widths}
    static = sum(name not in adaptive for name in ("k", "v", "q"))
    static += (mixer.gate + 1) * mixer.value_expansion
    rates = {"eta"} | ({"alpha"} if mixer.retention == "learned" else set())
    rates |= {"mu"} if mixer.momentum == "titans" else set()
    flops = 2 * dim * (static * dim + len(rates - adaptive) * mixer.heads)
    for group in spec.groups:
        per_head = _generate(group.spec) + _gradients(group.spec)
        per_head += _write(mixer, group.spec, group.chunk)
        if "memory" in group.spec.values:
            per_head += _read(mixer, group.spec, group.chunk)
        flops += mixer.heads * per_head
    return flops


def _generate(spec: MemorySpec) -> float:
    """Keys, values, queries and rates at the chunk's state; the main memory is read later."""
    return sum(_evaluation(spec, name) for name in spec.blocks if name != "memory")


def _evaluation(spec: MemorySpec, name: str) -> float:
    width = spec.blocks[name]
    second = (
        0 if spec.kind == "linear" else 2 * width * (spec.size if name in spec.values else 1)
    )
    return 2 * spec.size * width + second


def _gradients(spec: MemorySpec) -> float:
    """Every memory at the key and at the value, and back through its second layer."""
    columns = sum(spec.widths.values())
    values = len(spec.values)
    if spec.kind == "linear":
        return 2 * 2 * spec.size * columns
    second = 2 * (values * spec.hidden * spec.size + len(spec.rates) * spec.rate_hidden)
    at_value = second
    first = 2 * 2 * spec.size * columns
    if spec.targets == "shared":  # value memories are not evaluated at the value
        at_value = 2 * len(spec.rates) * spec.rate_hidden
        first -= 2 * spec.size * values * spec.hidden
    return first + second + at_value + second


def _write(mixer: SelfModifyingConfig, spec: MemorySpec, chunk: int) -> float:
    """One triangular system per layer input, and the rank-C update of each matrix."""
    momentum = mixer.momentum == "titans"

    def system(inputs: int, outputs: int, rule: str) -> float:
        update = 2 * inputs * outputs * (2 if momentum else 1)
        if rule == "gd":
            return update
        # Gram matrix, block inversion (about 2/3 C^3 for all C tokens), its product
        solve = 2 * chunk * inputs + 2 / 3 * chunk**2 + 2 * chunk * outputs
        if momentum:
            solve += 2 * chunk * outputs + 2 * inputs * outputs
        return update + solve

    flops = system(spec.size, sum(spec.widths.values()), mixer.rule)
    if spec.kind == "mlp":
        outer = mixer.rule if mixer.scope == "per_layer" else "gd"
        flops += len(spec.values) * system(spec.hidden, spec.size, outer)
        flops += len(spec.rates) * system(spec.rate_hidden, 1, outer)
    return flops


def _read(mixer: SelfModifyingConfig, spec: MemorySpec, chunk: int) -> float:
    """The main memory at the query, with the writes of the chunk before each token."""
    flops = _evaluation(spec, "memory")
    if mixer.read == "chunk_start":
        return flops
    momentum = mixer.momentum == "titans"
    layers = [(spec.size, spec.blocks["memory"], mixer.rule)]
    if spec.kind == "mlp":
        outer = mixer.rule if mixer.scope == "per_layer" else "gd"
        layers += [(spec.hidden, spec.size, outer)] * spec.mains
    for inputs, outputs, rule in layers:
        flops += 2 * chunk * (inputs + outputs)
        if momentum:
            flops += 2 * inputs * outputs
            flops += 2 * chunk * outputs if rule == "dgd" else 0
    return flops


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


def _lstm(config: ModelConfig, length: int) -> float:
    del length
    mixer, dim = config.mixer, config.dim
    units = mixer.units(dim)
    # four gates of the input and of the head's units, and the output projection
    return 2 * units * (4 * dim + 4 * units // mixer.heads + dim)


def _srwm(config: ModelConfig, length: int) -> float:
    del length
    mixer, dim = config.mixer, config.dim
    size = dim // mixer.heads
    # the matrix meets the input, and the difference of query and key
    return 2 * dim**2 + mixer.heads * 2 * 2 * size * (3 * size + 4)


def _recurrence(size: int, width: int, chunk: int, removal: bool = False) -> float:
    """One head of `hope_jax.ops.linear_recurrence`, one token.

    Scores and what they weigh, the read of the chunk's start and the update; with removal
    the keys' scores, the system (see `_write`) and what the key reads.
    """
    flops = 2 * chunk * (size + width) + 2 * 2 * size * width
    if removal:
        flops += 2 * chunk * (size + width) + 2 / 3 * chunk**2 + 2 * size * width
    return flops


_MIXERS = {
    AttentionConfig: _attention,
    CombaConfig: _delta_net,
    DeltaNetConfig: _delta_net,
    DLAConfig: _titans,
    GatedDeltaNetConfig: _delta_net,
    LinearAttentionConfig: _linear_attention,
    MambaConfig: _mamba,
    MemoraConfig: _memora,
    RetNetConfig: _retnet,
    SambaConfig: _samba,
    LSTMConfig: _lstm,
    RWKV7Config: _rwkv7,
    SelfModifyingConfig: _self_modifying,
    SlidingWindowConfig: _sliding_window,
    TitansConfig: _titans,
    TitansMACConfig: _titans_mac,
    TitansMAGConfig: _titans_mag,
    TitansMALConfig: _titans_mal,
    SRWMConfig: _srwm,
    TTTLinearConfig: _ttt,
    TTTMLPConfig: _ttt,
}
