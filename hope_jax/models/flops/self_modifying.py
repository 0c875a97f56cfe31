"""Operations of the self-modifying memories, per token of one layer."""

from __future__ import annotations

from hope_jax.config import ModelConfig, SelfModifyingConfig
from hope_jax.ops.memory import MemorySpec


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
    if spec.targets == "shared":  # value memories have no second layer at the value
        at_value = 2 * len(spec.rates) * spec.rate_hidden
    return first + second + at_value + second


def _write(mixer: SelfModifyingConfig, spec: MemorySpec, chunk: int) -> float:
    """One triangular system per layer input, and the rank-C update of each matrix."""
    momentum, initial = mixer.momentum == "titans", mixer.decays_to_initial

    def system(inputs: int, outputs: int, rule: str) -> float:
        update = 2 * inputs * outputs * (2 if momentum else 1)
        if rule == "gd":
            return update
        # Gram matrix, block inversion (about 2/3 C^3 for all C tokens), its product
        solve = 2 * chunk * inputs + 2 / 3 * chunk**2 + 2 * chunk * outputs
        if momentum:
            solve += 2 * chunk * outputs + 2 * inputs * outputs
        if initial:  # what the input reads in the weights that are decayed to
            solve += 2 * inputs * outputs
        return update + solve

    flops = system(spec.size, sum(spec.widths.values()), mixer.rule)
    if momentum:  # gates of the weights times those of the momentum, for all layers
        flops += 2 * chunk**2 + 2 * chunk
    if spec.kind == "mlp":
        outer = mixer.rule if mixer.scope == "per_layer" else "gd"
        flops += len(spec.values) * system(spec.hidden, spec.size, outer)
        flops += len(spec.rates) * system(spec.rate_hidden, 1, outer)
        if spec.hidden_norm == "none" and outer == "dgd":  # the unit input is read anew
            flops += 2 * (len(spec.values) * spec.hidden * spec.size)
            flops += 2 * len(spec.rates) * spec.rate_hidden
    return flops


def _read(mixer: SelfModifyingConfig, spec: MemorySpec, chunk: int) -> float:
    """The main memory at the query, with the writes of the chunk before each token."""
    flops = _evaluation(spec, "memory")
    if mixer.read == "chunk_start":
        return flops
    momentum, initial = mixer.momentum == "titans", mixer.decays_to_initial
    layers = [(spec.size, spec.blocks["memory"], mixer.rule)]
    if spec.kind == "mlp":
        outer = mixer.rule if mixer.scope == "per_layer" else "gd"
        layers += [(spec.hidden, spec.size, outer)] * spec.mains
    for inputs, outputs, rule in layers:
        flops += 2 * chunk * (inputs + outputs)
        if initial:
            flops += 2 * inputs * outputs
        if momentum:
            flops += 2 * inputs * outputs
            flops += 2 * chunk * outputs if rule == "dgd" else 0
    return flops


COUNTS = {
    SelfModifyingConfig: _self_modifying,
}
