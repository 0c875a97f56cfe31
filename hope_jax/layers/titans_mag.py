"""Titans with memory as a gate: a sequence mixer of attention and a deep memory."""

from __future__ import annotations

import flax.linen as nn
import jax

from hope_jax.config import ModelConfig, TitansMAGConfig
from hope_jax.layers.deep_memory import memory_layers, memory_projections, write_and_read
from hope_jax.layers.heads import merge
from hope_jax.layers.linear import constant
from hope_jax.layers.norm import rms_norm
from hope_jax.layers.window import (
    MemoryAndWindowState,
    attend_window,
    attention_projections,
)
from hope_jax.ops.recompute import recomputed

_GATES = {"sigmoid": nn.sigmoid, "silu": nn.silu}


class TitansMAG(nn.Module):
    """Attention over a window, gated by what a deep memory reads (Behrouz et al. 2025).

    arXiv:2501.00663, section 4.2: `o = y * gate(M(x))`, with attention's y and the memory's
    read normalised by learned scales. Every query of the attention also sees some learned
    tokens. The memory does not write them: see `hope_jax.layers.titans.Titans`.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: MemoryAndWindowState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, MemoryAndWindowState]:
        """Attend to the window, write every token to the memory and read it there.

        Args:
          x_BTD: normalised inputs.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves the memory as it is; attention goes on.
        """
        config: TitansMAGConfig = self.config.mixer
        dim = x_BTD.shape[-1]
        layers, weights = memory_layers(self, dim), memory_projections(self, dim)
        attention = attention_projections(self, dim, config.heads, config.persistent)
        memory, cache = (None, None) if state is None else (state.memory, state.cache)
        y_BTHK, cache = attend_window(self, attention, x_BTD, cache, reset_BT)
        m_BTHK, memory = write_and_read(self, layers, weights, x_BTD, memory, reset_BT, writes)
        state = MemoryAndWindowState(memory, cache)
        if x_BTD.shape[1] == 0:
            return x_BTD, state
        return merge(self, self.config, gated_by_memory(self, y_BTHK, m_BTHK)), state


def gated_by_memory(module: nn.Module, y_BTHK: jax.Array, m_BTHK: jax.Array) -> jax.Array:
    """`norm(y) * gate(norm(m))` per head, in the type of `y`; owns both norms' scales."""
    shape, axes = y_BTHK.shape[2:], ("heads", "head_dim")
    scales = [
        constant(module, name, shape, axes, 1.0) for name in ("attention_norm", "read_norm")
    ]
    gate, eps = _GATES[module.config.mixer.memory_gate], module.config.norm_eps

    def finish(y_BTHK, m_BTHK, y_scale, m_scale):
        gate_BTHK = gate(rms_norm(m_BTHK, m_scale, eps)).astype(y_BTHK.dtype)
        return rms_norm(y_BTHK, y_scale, eps).astype(y_BTHK.dtype) * gate_BTHK

    return recomputed(finish)(y_BTHK, m_BTHK, *scales)
