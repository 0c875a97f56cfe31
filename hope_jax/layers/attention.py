"""Softmax attention as a sequence mixer, with a key-value cache as its state."""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.layers.heads import merge, project
from hope_jax.layers.per_device import BY_TIME, ROWS, on_each_device
from hope_jax.ops.attention import causal_attention
from hope_jax.ops.rope import rope


@flax.struct.dataclass
class AttentionState:
    """Keys and values read so far; S is the capacity of the cache.

    An unreserved cache is exactly full and grows with every call, which is always right
    but gives every call new shapes. `reserve` adds room that later calls fill in place.
    """

    keys_BSHK: jax.Array  # rotated
    values_BSHK: jax.Array
    length_B: jax.Array  # tokens read
    first_B: jax.Array  # index of the first token since the last reset
    reserved: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return self.keys_BSHK.shape[-3]


def reserve(state: AttentionState, tokens: int) -> AttentionState:
    """Make room for `tokens` more; until then calls keep shapes. Leading axes may be stacked.

    Outside `jit` the tokens read are counted; inside, the capacity is extended by `tokens`.
    """
    if isinstance(state.length_B, jax.core.Tracer) or not state.reserved:
        used = state.capacity
    else:
        used = int(state.length_B.max(initial=0))
    extra = used + tokens - state.capacity
    if extra > 0:
        axes = state.keys_BSHK.ndim
        pad = [(0, extra) if axis == axes - 3 else (0, 0) for axis in range(axes)]
        state = state.replace(
            keys_BSHK=jnp.pad(state.keys_BSHK, pad), values_BSHK=jnp.pad(state.values_BSHK, pad)
        )
    return dataclasses.replace(state, reserved=True)


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions; heads may share keys and values."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: AttentionState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, AttentionState]:
        """Mix `x_BTD` with everything read since the last reset.

        `writes=False` changes nothing: attention has no memory that learns. Reading past
        the capacity of a reserved state gives NaN.
        """
        del writes
        batch, time, dim = x_BTD.shape
        mixer = self.config.mixer
        size, groups = dim // mixer.heads, mixer.groups
        roles = {"query": mixer.heads, "key": groups, "value": groups}
        q_BTHK, k_BTHK, v_BTHK = (
            project(self, role, x_BTD, heads, size, mixer.bias) for role, heads in roles.items()
        )

        if state is None:
            empty_BSHK = jnp.zeros((batch, 0, groups, size), x_BTD.dtype)
            none_B = jnp.zeros((batch,), jnp.int32)
            state = AttentionState(empty_BSHK, empty_BSHK, none_B, none_B)
        if time == 0:
            return x_BTD, state

        position_BT = state.length_B[:, None] + jnp.arange(time, dtype=jnp.int32)[None]
        turn = lambda x_BTHK: rope(x_BTHK, position_BT, mixer.rope_theta, mixer.rope_scaling)
        q_BTHK, k_BTHK = turn(q_BTHK), turn(k_BTHK)
        first_BT = None
        if reset_BT is not None or state.capacity > 0:
            start_BT = jnp.where(reset_BT, position_BT, 0) if reset_BT is not None else 0
            first_BT = jnp.maximum(state.first_B[:, None], start_BT)
            first_BT = jax.lax.cummax(jnp.broadcast_to(first_BT, (batch, time)), axis=1)
        state, overflow_B = _append(state, k_BTHK, v_BTHK)
        attend = functools.partial(causal_attention, block=mixer.block)
        attend = on_each_device(attend, (BY_TIME, BY_TIME, BY_TIME, ROWS, ROWS), BY_TIME)
        y_BTHK = attend(q_BTHK, state.keys_BSHK, state.values_BSHK, first_BT, position_BT[:, 0])
        if overflow_B is not None:
            y_BTHK = jnp.where(overflow_B[:, None, None, None], jnp.nan, y_BTHK)
        if first_BT is not None:
            state = state.replace(first_B=first_BT[:, -1])
        return merge(self, self.config, y_BTHK), state


def _append(
    state: AttentionState, k_BTHK: jax.Array, v_BTHK: jax.Array
) -> tuple[AttentionState, jax.Array | None]:
    """The cache with new keys and values, and which rows had no room for them."""
    length_B = state.length_B + k_BTHK.shape[1]
    if not state.reserved:
        keys_BSHK = jnp.concatenate([state.keys_BSHK, k_BTHK], axis=1)
        values_BSHK = jnp.concatenate([state.values_BSHK, v_BTHK], axis=1)
        overflow_B = None
    else:
        write = jax.vmap(
            lambda cache, new, at: jax.lax.dynamic_update_slice_in_dim(cache, new, at, 0)
        )
        keys_BSHK = write(state.keys_BSHK, k_BTHK, state.length_B)
        values_BSHK = write(state.values_BSHK, v_BTHK, state.length_B)
        overflow_B = length_B > state.capacity
    state = state.replace(keys_BSHK=keys_BSHK, values_BSHK=values_BSHK, length_B=length_B)
    return state, overflow_B
