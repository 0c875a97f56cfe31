"""Titans with memory as a layer: a deep memory, and attention over what it reads."""

from __future__ import annotations

import flax.linen as nn
import jax

from hope_jax.config import ModelConfig, TitansMALConfig
from hope_jax.layers.deep_memory import memory_layers, memory_projections, write_and_read
from hope_jax.layers.heads import merge, normed_and_gated
from hope_jax.layers.linear import constant
from hope_jax.layers.norm import rms_norm
from hope_jax.layers.window import (
    MemoryAndWindowState,
    attend_window,
    attention_projections,
)


class TitansMAL(nn.Module):
    """A deep memory, then attention over a window (Behrouz et al. 2025).

    arXiv:2501.00663, section 4.3: `o = attention(M(x))`. Attention reads normalised inputs,
    to which its own input is added unless `inner_residual` is off: without it, attention
    would have nothing to attend to but reads of a memory. Every query also sees some learned
    tokens; they are those that come out of the memory in the paper, which do not depend on
    the text either.
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
        """Write every token to the memory, read it there, attend to what was read before.

        Args:
          x_BTD: normalised inputs.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves the memory as it is; attention goes on.
        """
        config: TitansMALConfig = self.config.mixer
        dim = x_BTD.shape[-1]
        layers, weights = memory_layers(self, dim), memory_projections(self, dim)
        attention = attention_projections(self, dim, config.heads, config.persistent)
        scale_D = constant(self, "inner_norm", (dim,), ("embed",), 1.0)
        memory, cache = (None, None) if state is None else (state.memory, state.cache)
        y_BTHK, memory = write_and_read(self, layers, weights, x_BTD, memory, reset_BT, writes)
        if x_BTD.shape[1] == 0:
            _, cache = attend_window(self, attention, x_BTD, cache, reset_BT)
            return x_BTD, MemoryAndWindowState(memory, cache)
        y_BTHK = normed_and_gated(self, self.config, x_BTD, y_BTHK, config.gate)
        y_BTD = merge(self, self.config, y_BTHK, "memory_out")
        if config.inner_residual:
            y_BTD = x_BTD + y_BTD
        y_BTD = rms_norm(y_BTD, scale_D, self.config.norm_eps).astype(x_BTD.dtype)
        y_BTHK, cache = attend_window(self, attention, y_BTD, cache, reset_BT)
        return merge(self, self.config, y_BTHK), MemoryAndWindowState(memory, cache)
