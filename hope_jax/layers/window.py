"""Attention over a window, and learned tokens in front of it, for mixers that have it."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.layers.deep_memory import MemoryState
from hope_jax.layers.linear import einsum, weight
from hope_jax.layers.per_device import BY_TIME, ROWS, Split, on_each_device
from hope_jax.ops.rope import rope
from hope_jax.ops.window import Prefix, WindowCache, empty_cache, window_attention

ROLES = ("query", "key", "value")


@flax.struct.dataclass
class MemoryAndWindowState:
    """Fast state of a layer of both: that of its memory, and the window's last tokens."""

    memory: MemoryState
    cache: WindowCache


def attention_projections(
    module: nn.Module, dim: int, heads: int, persistent: int = 0
) -> dict[str, jax.Array]:
    """Weights `w_query`, `w_key`, `w_value` of `module`, and its learned tokens.

    The tokens, of the size of normalised inputs, stand in front of every text, "persistent".
    """
    shape, axes = (dim, heads, dim // heads), ("embed", "heads", "head_dim")
    weights = {f"w_{r}": weight(module, f"w_{r}", shape, axes, dim**-0.5) for r in ROLES}
    if persistent:
        weights["persistent"] = weight(
            module, "persistent", (persistent, dim), (None, "embed"), 1.0
        )
    return weights


def persistent_keys(
    weights: dict[str, jax.Array], dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
    """Keys and values `[P, H, K]` of the learned tokens."""
    tokens_PD = weights["persistent"].astype(dtype)
    k_PHK, v_PHK = (
        einsum("pd,dhk->phk", tokens_PD, weights[f"w_{role}"]) for role in ROLES[1:]
    )
    return k_PHK, v_PHK


def attend_window(
    module: nn.Module,
    weights: dict[str, jax.Array],
    x_BTD: jax.Array,
    cache: WindowCache | None,
    reset_BT: jax.Array | None,
) -> tuple[jax.Array, WindowCache]:
    """Attention of every token to its window and the learned tokens, if any; T may be 0.

    `module` is a mixer, whose configuration has `heads`, `window`, `rope_theta` and `block`.
    """
    mixer = module.config.mixer
    batch, time, dim = x_BTD.shape
    heads, size = mixer.heads, dim // mixer.heads
    if time == 0:
        if cache is None:
            cache = empty_cache(batch, mixer.window, heads, size, x_BTD.dtype)
        return x_BTD.reshape(batch, 0, heads, size), cache
    plain_BTHK, k_BTHK, v_BTHK = (
        einsum("btd,dhk->bthk", x_BTD, weights[f"w_{role}"]) for role in ROLES
    )
    position_BT = jnp.arange(time, dtype=jnp.int32)[None]
    if cache is not None:
        position_BT = cache.length_B[:, None] + position_BT
    position_BT = jnp.broadcast_to(position_BT, (batch, time))
    prefix = None
    if "persistent" in weights:
        prefix = Prefix(plain_BTHK, *persistent_keys(weights, x_BTD.dtype))

    def attend(q_BTHK, k_BTHK, v_BTHK, cache, reset_BT, prefix):
        return window_attention(
            q_BTHK,
            k_BTHK,
            v_BTHK,
            mixer.window,
            cache,
            reset_BT,
            prefix=prefix,
            block=mixer.block,
        )

    learned = Prefix(BY_TIME, Split(None, 1), Split(None, 1)) if prefix else None
    attend = on_each_device(attend, (*[BY_TIME] * 4, ROWS, learned), (BY_TIME, BY_TIME))
    return attend(
        rope(plain_BTHK, position_BT, mixer.rope_theta),
        rope(k_BTHK, position_BT, mixer.rope_theta),
        v_BTHK,
        cache,
        reset_BT,
        prefix,
    )
