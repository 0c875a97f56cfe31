"""Memora as a sequence mixer: inner models whose weights are distributions.

The recurrence is `hope_jax.ops.memora`; this module owns the slow weights: the inner models'
initial weights and LayerNorm, projections, convolutions, rates, and the output's norm and gate.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import MemoraConfig, ModelConfig
from hope_jax.layers.heads import (
    FEW_TOKENS,
    convolved_roles,
    count_writes,
    merge,
    normed_and_gated,
    project,
    unit,
)
from hope_jax.layers.linear import constant, conv_kernel, einsum, logit, weight
from hope_jax.layers.per_device import BY_HEAD, BY_TIME, ROWS, WEIGHTS, on_each_device
from hope_jax.ops.memora import (
    MemoraState,
    Memory,
    Tokens,
    initial_state,
    read_by_chunk,
    read_by_token,
)
from hope_jax.ops.recompute import recomputed


@flax.struct.dataclass
class MemoraMixerState:
    """Fast state of one layer; E is the width of all heads together.

    Attributes:
      memory: the inner models, and the gradients of the chunk that is open.
      tails: the last inputs `[B, conv - 1, E]` of the convolutions of q, k and v.
    """

    memory: MemoraState
    tails: dict[str, jax.Array]


class Memora(nn.Module):
    """Inner models with retention by KL divergence (Behrouz et al. 2025), one for each head.

    Queries, keys and values pass a short convolution; queries and keys have unit length. What
    is read is normalised per head, by its root mean square, and gated. The published model has
    a rate and a retention for every channel; here the rate is one per channel, and the
    retention one per head, so that what a chunk retains is a C x C matrix.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: MemoraMixerState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, MemoraMixerState]:
        """Write every token, and read it from the inner model that it has changed.

        Args:
          x_BTD: normalised inputs.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves the inner models as they are, and the open chunk open.
        """
        mixer: MemoraConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        memory = self._memory(dim)
        roles, tails = self._roles(x_BTD, state, reset_BT)
        if time == 0:
            fresh = initial_state(memory, batch, mixer.chunk)
            return x_BTD, state or MemoraMixerState(fresh, tails)
        tokens = Tokens(roles["q"], roles["k"], roles["v"], **self._gates(x_BTD))
        count_writes(self, tokens.alpha_BTH.size, writes)
        if state is not None and time <= FEW_TOKENS and writes:
            read = functools.partial(read_by_token, chunk=mixer.chunk)
        else:
            read = functools.partial(
                read_by_chunk, writes=writes, chunk=mixer.chunk, remat=mixer.remat
            )
        read = on_each_device(read, (WEIGHTS, BY_TIME, BY_HEAD, ROWS), (BY_TIME, BY_HEAD))
        inner = None if state is None else state.memory
        y_BTHK, inner = read(memory, tokens, inner, reset_BT)
        y_BTHK = normed_and_gated(self, self.config, x_BTD, y_BTHK, mixer.gate)
        return merge(self, self.config, y_BTHK), MemoraMixerState(inner, tails)

    def _memory(self, dim: int) -> Memory:
        """Initial inner models, learnt across sequences."""
        mixer: MemoraConfig = self.config.mixer
        heads, size, hidden = mixer.heads, dim // mixer.heads, mixer.hidden_size(dim)
        shape, axes = (heads, size), ("heads", "head_dim")
        into, out = ("heads", "memory", "hidden"), ("heads", "memory", "head_dim")
        return Memory(
            weight(self, "memory_in", (heads, size, hidden), into, mixer.spread, jnp.float32),
            weight(self, "memory_out", (heads, hidden, size), out, mixer.spread, jnp.float32),
            constant(self, "memory_norm_scale", shape, axes, 1.0),
            constant(self, "memory_norm_bias", shape, axes, 0.0),
            simplex=mixer.simplex,
            mass=mixer.mass,
            eps=mixer.memory_eps,
            read=mixer.read,
        )

    def _roles(self, x_BTD, state, reset_BT) -> tuple[dict[str, jax.Array], dict]:
        """Queries, keys and values, and the convolutions' new tails."""
        mixer: MemoraConfig = self.config.mixer
        heads, size = mixer.heads, x_BTD.shape[-1] // mixer.heads
        tails = dict.fromkeys("qkv") if state is None else state.tails
        projected, kernels = {}, {}
        for role in "qkv":
            projected[role] = project(self, role, x_BTD, heads, size)
            if mixer.conv:
                shape, axes = (mixer.conv, heads, size), (None, "heads", "head_dim")
                kernels[role] = conv_kernel(self, f"conv_{role}", shape, axes)

        def finish(role: str, y_BTHK: jax.Array) -> jax.Array:
            if mixer.activation == "silu":
                y_BTHK = nn.silu(y_BTHK)
            return y_BTHK if role == "v" else unit(y_BTHK)

        return convolved_roles(projected, kernels, tails, reset_BT, finish)

    def _gates(self, x_BTD) -> dict[str, jax.Array]:
        """Rates and retentions of every token, float32."""
        mixer: MemoraConfig = self.config.mixer
        dim, heads, f32 = x_BTD.shape[-1], mixer.heads, jnp.float32
        rank, size = mixer.rate_rank, dim // heads
        start = logit(mixer.start_rate / mixer.rate_limit)
        if rank is None:
            w_DH = weight(self, "w_rate", (dim, heads), ("embed", "heads"), 0.02)
            bias_HK = constant(self, "b_rate", (heads, 1), ("heads", None), start)
            rate_BTHK = einsum("btd,dh->bth", x_BTD, w_DH, result=f32)[..., None]
        else:
            axes = (None, "heads", "head_dim")
            w_DR = weight(self, "w_rate_in", (dim, rank), ("embed", None), dim**-0.5)
            w_RHK = weight(self, "w_rate_out", (rank, heads, size), axes, 0.1 * rank**-0.5)
            bias_HK = constant(self, "b_rate", (heads, size), axes[1:], start)
            low_BTR = einsum("btd,dr->btr", x_BTD, w_DR)
            rate_BTHK = einsum("btr,rhk->bthk", low_BTR, w_RHK, result=f32)
        w_alpha_DH = weight(self, "w_alpha", (dim, heads), ("embed", "heads"), 0.02)
        b_alpha_H = constant(
            self, "b_alpha", (heads,), ("heads",), logit(mixer.initial_retention)
        )
        alpha_BTH = einsum("btd,dh->bth", x_BTD, w_alpha_DH, result=f32)

        def squash(rate_BTHK, bias_HK, alpha_BTH, b_alpha_H):
            return {
                "eta_BTHK": mixer.rate_limit * nn.sigmoid(rate_BTHK + bias_HK[None, None]),
                "alpha_BTH": nn.sigmoid(alpha_BTH + b_alpha_H[None, None]),
            }

        gates = recomputed(squash)(rate_BTHK, bias_HK, alpha_BTH, b_alpha_H)
        if self.is_mutable_collection("stats"):
            self.sow("stats", "eta", jnp.mean(gates["eta_BTHK"]))
            self.sow("stats", "alpha", jnp.mean(gates["alpha_BTH"]))
        return gates
