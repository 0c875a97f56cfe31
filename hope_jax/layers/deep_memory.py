"""The slow weights of a deep memory, for mixers that have one.

The recurrence is `hope_jax.ops.deep_memory`. Parameters belong to the mixer.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import DeepMemoryConfig
from hope_jax.layers.heads import FEW_TOKENS, convolved_roles, count_writes, unit
from hope_jax.layers.linear import constant, conv_kernel, einsum, logit, weight
from hope_jax.layers.per_device import BY_HEAD, BY_TIME, ROWS, WEIGHTS, on_each_device
from hope_jax.ops.deep_memory import (
    DeepMemorySpec,
    DeepMemoryState,
    Layers,
    Tokens,
    initial_state,
    read_by_chunk,
    read_by_token,
)

Tails = dict[str, jax.Array]


@flax.struct.dataclass
class MemoryState:
    """Fast state of one memory.

    Attributes:
      memory: fast weights of all layers.
      tails: the last inputs `[B, conv - 1, D]` of the convolutions of q, k and v.
    """

    memory: DeepMemoryState
    tails: Tails


def recurrence_spec(config: DeepMemoryConfig) -> DeepMemorySpec:
    """The recurrence that a configuration describes."""
    return DeepMemorySpec(
        chunk=config.chunk,
        objective=config.objective,
        activation=config.activation,
        hidden_norm=config.hidden_norm,
        residual=config.residual,
        decay_to=config.decay_to,
        remat=config.remat,
    )


def memory_layers(module: nn.Module, dim: int) -> Layers:
    """Initial weights of the memory's layers, learnt across documents."""
    config: DeepMemoryConfig = module.config.mixer
    sizes = config.sizes(dim)
    layers = []
    for index in range(config.layers):
        name, inputs, outputs = f"memory_{index}", sizes[index], sizes[index + 1]
        axes = ("heads", "memory", "hidden" if index + 1 < config.layers else "head_dim")
        shape = (config.heads, inputs, outputs)
        layers.append(weight(module, name, shape, axes, inputs**-0.5, jnp.float32))
    return tuple(layers)


def memory_projections(module: nn.Module, dim: int) -> dict[str, jax.Array]:
    """Weights from the mixer's input to what the memory reads at every token."""
    config: DeepMemoryConfig = module.config.mixer
    heads, size = config.heads, dim // config.heads
    weights = {}
    for role in "qkv":
        shape, axes = (dim, heads, size), ("embed", "heads", "head_dim")
        weights[f"w_{role}"] = weight(module, f"w_{role}", shape, axes, dim**-0.5)
        if config.conv:
            shape, axes = (config.conv, heads, size), (None, "heads", "head_dim")
            weights[f"conv_{role}"] = conv_kernel(module, f"conv_{role}", shape, axes)
    starts = {"rate": config.start_rate / config.rate_limit}
    if config.retention == "learned":
        starts["retention"] = config.initial_retention
    if config.momentum == "titans":
        starts["momentum"] = config.initial_momentum
    for name, start in starts.items():
        shape, axes = (dim, heads), ("embed", "heads")
        weights[f"w_{name}"] = weight(module, f"w_{name}", shape, axes, dim**-0.5)
        bias = logit(start)
        weights[f"b_{name}"] = constant(module, f"b_{name}", (heads,), ("heads",), bias)
    return weights


def empty_tails(config: DeepMemoryConfig, batch: int, dim: int, dtype: jnp.dtype) -> Tails:
    """What the convolutions find before the first token."""
    if not config.conv:
        return {}
    return {role: jnp.zeros((batch, config.conv - 1, dim), dtype) for role in "qkv"}


def fresh_state(
    config: DeepMemoryConfig, layers: Layers, batch: int, dim: int, dtype: jnp.dtype
) -> MemoryState:
    """The state of `batch` streams that have read nothing."""
    memory = initial_state(layers, batch, config.momentum == "titans")
    return MemoryState(memory, empty_tails(config, batch, dim, dtype))


def memory_tokens(
    config: DeepMemoryConfig,
    weights: dict[str, jax.Array],
    x_BTD: jax.Array,
    tails: Tails | None,
    reset_BT: jax.Array | None,
) -> tuple[Tokens, Tails]:
    """Queries, keys, values and gates, and the convolutions' new tails.

    Each of q, k and v passes its convolution and SiLU; queries and keys have unit length.
    """
    projected = {r: einsum("btd,dhk->bthk", x_BTD, weights[f"w_{r}"]) for r in "qkv"}
    kernels = {r: weights[f"conv_{r}"] for r in "qkv"} if config.conv else {}

    tails = dict.fromkeys(kernels) if tails is None else tails
    finish = functools.partial(activated, config)
    new, tails = convolved_roles(projected, kernels, tails, reset_BT, finish)
    gates = memory_gates(config, weights, x_BTD)
    return Tokens(new["q"], new["k"], new["v"], **gates), tails


def activated(config: DeepMemoryConfig, role: str, y_BTHK: jax.Array) -> jax.Array:
    """SiLU, and unit length for queries and keys, of what a convolution puts out."""
    y_BTHK = nn.silu(y_BTHK)
    if role == "v" and config.value_norm == "none":
        return y_BTHK
    return unit(y_BTHK)


def memory_gates(
    config: DeepMemoryConfig, weights: dict[str, jax.Array], x_BTD: jax.Array
) -> dict[str, jax.Array]:
    """Rate, retention and momentum of every token, float32, as fields of `Tokens`."""
    gates = {}
    for name in ("rate", "retention", "momentum"):
        if f"w_{name}" in weights:
            logit_BTH = einsum("btd,dh->bth", x_BTD, weights[f"w_{name}"], result=jnp.float32)
            gates[f"{name}_BTH"] = nn.sigmoid(logit_BTH + weights[f"b_{name}"][None, None])
    gates["rate_BTH"] = config.rate_limit * gates["rate_BTH"]
    if "momentum_BTH" in gates:
        # what a gradient adds to the weights in the end is the rate, whatever the momentum
        gates["rate_BTH"] = gates["rate_BTH"] * (1 - gates["momentum_BTH"])
    return gates


def write_and_read(
    module: nn.Module,
    layers: Layers,
    weights: dict[str, jax.Array],
    x_BTD: jax.Array,
    state: MemoryState | None,
    reset_BT: jax.Array | None,
    writes: bool,
) -> tuple[jax.Array, MemoryState]:
    """Write every token and read it, in chunks or, if they are few, one by one.

    `layers` and `weights` are those of `module`, from `memory_layers` and
    `memory_projections`; T may be 0.
    """
    config: DeepMemoryConfig = module.config.mixer
    batch, time, dim = x_BTD.shape
    if time == 0:
        nothing_BTHK = x_BTD.reshape(batch, 0, config.heads, dim // config.heads)
        fresh = fresh_state(config, layers, batch, dim, x_BTD.dtype)
        return nothing_BTHK, fresh if state is None else state
    memory, tails = (None, None) if state is None else (state.memory, state.tails)
    tokens, tails = memory_tokens(config, weights, x_BTD, tails, reset_BT)
    count_writes(module, tokens.rate_BTH.size, writes)
    if module.is_mutable_collection("stats"):
        for name in ("rate", "retention", "momentum"):
            gate_BTH = getattr(tokens, f"{name}_BTH")
            if gate_BTH is not None:
                module.sow("stats", name, jnp.mean(gate_BTH))
    few = memory is not None and time <= FEW_TOKENS
    read = functools.partial(
        read_by_token if few else read_by_chunk, recurrence_spec(config), writes=writes
    )
    read = on_each_device(read, (WEIGHTS, BY_TIME, BY_HEAD, ROWS), (BY_TIME, BY_HEAD))
    y_BTHK, memory = read(layers, tokens, memory, reset_BT)
    return y_BTHK, MemoryState(memory, tails)
