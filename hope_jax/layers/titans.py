"""The long-term memory of Titans as a sequence mixer, and deep linear attention."""

from __future__ import annotations

import flax.linen as nn
import jax

from hope_jax.config import ModelConfig, TitansConfig
from hope_jax.layers.deep_memory import (
    MemoryState,
    fresh_state,
    memory_layers,
    memory_projections,
    memory_tokens,
    read_memory,
)
from hope_jax.layers.heads import merge, normed_and_gated


class Titans(nn.Module):
    """A deep memory per head, trained on what it reads: Titans (LMM) and DLA.

    Titans (Behrouz et al. 2025, arXiv:2501.00663) has momentum and a loss of squares, deep
    linear attention (Behrouz et al. 2025, arXiv:2505.23735) neither. What is read is
    normalised per head and gated.

    Titans lets some learned tokens, the same for all texts, come before the first one. To
    the memory they could do nothing but change the weights that a document starts from, and
    these are learned as they are; so there are none here. Attention is another matter: see
    the hybrids.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: MemoryState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, MemoryState]:
        """Write every token, and read it from the memory that it has changed.

        Args:
          x_BTD: normalised inputs.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves the memory as it is.
        """
        config: TitansConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        layers = memory_layers(self, dim)
        weights = memory_projections(self, dim)
        if time == 0 and state is None:
            state = fresh_state(config, layers, batch, dim, x_BTD.dtype)
        if time == 0:
            return x_BTD, state
        tails = None if state is None else state.tails
        tokens, tails = memory_tokens(config, weights, x_BTD, tails, reset_BT)
        memory = None if state is None else state.memory
        y_BTHK, memory = read_memory(self, layers, tokens, memory, reset_BT, writes)
        y_BTHK = normed_and_gated(self, self.config, x_BTD, y_BTHK, config.gate)
        return merge(self, self.config, y_BTHK), MemoryState(memory, tails)
