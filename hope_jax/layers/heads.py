"""Into heads and out of them again: what mixers share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.layers.linear import constant, einsum, output_std, weight
from hope_jax.layers.norm import rms_norm
from hope_jax.layers.per_device import BY_HEAD, BY_TIME, ROWS, on_each_device
from hope_jax.ops.conv import causal_conv
from hope_jax.ops.linear_recurrence import Tokens, gated, read_by_chunk, step
from hope_jax.ops.memory import l2_normalise
from hope_jax.ops.recompute import recomputed

# So few tokens go on from a state one by one: a chunk of them would be padding.
FEW_TOKENS = 4


def project(
    module: nn.Module, name: str, x_BTD: jax.Array, heads: int, size: int, bias: bool = False
) -> jax.Array:
    """`x W` with a weight `w_<name>` of `module`, split into heads `[B, T, H, size]`.

    With `bias`, its parameter `<name>_bias` is added.
    """
    dim = x_BTD.shape[-1]
    axes = ("embed", "heads", "head_dim")
    w_DHK = weight(module, f"w_{name}", (dim, heads, size), axes, dim**-0.5)
    y_BTHK = einsum("btd,dhk->bthk", x_BTD, w_DHK)
    if not bias:
        return y_BTHK
    bias_HK = constant(module, f"{name}_bias", (heads, size), axes[1:], 0.0)
    return y_BTHK + bias_HK.astype(y_BTHK.dtype)[None, None]


def merge(
    module: nn.Module, config: ModelConfig, y_BTHV: jax.Array, name: str = "out"
) -> jax.Array:
    """Back to the width of the model with the weight `w_<name>` of `module`."""
    heads, size = y_BTHV.shape[2:]
    axes = ("heads", "head_dim", "embed")
    std = output_std(config, heads * size)
    w_HVD = weight(module, f"w_{name}", (heads, size, config.dim), axes, std)
    return einsum("bthv,hvd->btd", y_BTHV, w_HVD)


def normed_and_gated(
    module: nn.Module, config: ModelConfig, x_BTD: jax.Array, y_BTHV: jax.Array, gate: str
) -> jax.Array:
    """RMSNorm of each head's read, times a gate of the mixer's input, in the type of `x`.

    Args:
      module: owner of the parameters `read_norm` and `w_gate`.
      config: of the model.
      x_BTD: the mixer's input.
      y_BTHV: float32 reads.
      gate: "silu" or "sigmoid" of a projection of the input, or "none".
    """
    heads, size = y_BTHV.shape[2:]
    scale_HV = constant(module, "read_norm", (heads, size), ("heads", "head_dim"), 1.0)
    gates = () if gate == "none" else (project(module, "gate", x_BTD, heads, size),)

    def finish(y_BTHV, scale_HV, *gates):
        y_BTHV = rms_norm(y_BTHV, scale_HV, config.norm_eps).astype(x_BTD.dtype)
        for gate_BTHV in gates:
            y_BTHV = y_BTHV * (nn.silu if gate == "silu" else nn.sigmoid)(gate_BTHV)
        return y_BTHV

    return recomputed(finish)(y_BTHV, scale_HV, *gates)


def convolved(
    y_BTHK: jax.Array,
    kernel_JHK: jax.Array,
    tail_BKD: jax.Array | None,
    reset_BT: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """`causal_conv` of all heads; D in the tail is the width of all heads together."""
    batch, time, heads, size = y_BTHK.shape
    flat_BTD = y_BTHK.reshape(batch, time, heads * size)
    kernel_JD = kernel_JHK.reshape(-1, heads * size)
    flat_BTD, tail_BKD = causal_conv(flat_BTD, kernel_JD, tail_BKD, reset_BT)
    return flat_BTD.reshape(y_BTHK.shape), tail_BKD


def convolved_roles(
    projected: dict[str, jax.Array],
    kernels: dict[str, jax.Array],
    tails: dict[str, jax.Array | None],
    reset_BT: jax.Array | None,
    finish: Callable[[str, jax.Array], jax.Array],
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Queries, keys and values behind short convolutions, and the convolutions' new tails.

    Args:
      projected: `[B, T, H, K]` by role.
      kernels: `[J, H, K]` by role; empty without convolutions.
      tails: the last inputs of each role's convolution, or None.
      reset_BT: True where a document starts.
      finish: `(role, convolved)` to what the role is, done again in the backward pass too.
    """

    def views(projected, kernels, tails):
        new, new_tails = {}, {}
        for role, y_BTHK in projected.items():
            if role in kernels:
                y_BTHK, new_tails[role] = convolved(
                    y_BTHK, kernels[role], tails[role], reset_BT
                )
            new[role] = finish(role, y_BTHK)
        return new, new_tails

    return recomputed(views)(projected, kernels, tails)


def unit(y_BTHK: jax.Array) -> jax.Array:
    """Unit length, computed in float32, in the type of `y`."""
    return l2_normalise(y_BTHK.astype(jnp.float32)).astype(y_BTHK.dtype)


def count_writes(module: nn.Module, events: int, writes: bool) -> None:
    """How many memory updates there were, for logs; free where nobody asks."""
    if module.is_mutable_collection("stats"):
        events = events if writes else 0
        module.sow("stats", "write_events", jnp.asarray(events, jnp.int32))


def read_memory(
    module: nn.Module,
    tokens: Tokens,
    state: Any,
    reset_BT: jax.Array | None,
    writes: bool,
) -> tuple[jax.Array, jax.Array]:
    """`read_by_chunk`, or one `step` for a single token; counts the writes for logs.

    `module` is a mixer, whose configuration has `chunk` and `remat`, and `state` is its own,
    with `memory_BHKV`, or None.
    """
    mixer = module.config.mixer
    memory_BHKV = None if state is None else state.memory_BHKV
    count_writes(module, tokens.k_BTHK[..., 0].size, writes)
    if memory_BHKV is not None and tokens.k_BTHK.shape[1] == 1:
        token = jax.tree.map(lambda x: x[:, 0], gated(tokens, reset_BT, writes))
        y_BHV, memory_BHKV = step(memory_BHKV, token)
        return y_BHV[:, None], memory_BHKV
    read = functools.partial(read_by_chunk, writes=writes, chunk=mixer.chunk, remat=mixer.remat)
    read = on_each_device(read, (BY_TIME, BY_HEAD, ROWS), (BY_TIME, BY_HEAD))
    return read(tokens, memory_BHKV, reset_BT)
