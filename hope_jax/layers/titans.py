"""The long-term memory of Titans as a sequence mixer, and deep linear attention."""

from __future__ import annotations

import flax.linen as nn
import jax

from hope_jax.config import ModelConfig
from hope_jax.layers.deep_memory import (
    MemoryState,
    memory_layers,
    memory_projections,
    write_and_read,
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
        layers = memory_layers(self, x_BTD.shape[-1])
        weights = memory_projections(self, x_BTD.shape[-1])
        y_BTHK, state = write_and_read(self, layers, weights, x_BTD, state, reset_BT, writes)
        if x_BTD.shape[1] == 0:
            return x_BTD, state
        y_BTHK = normed_and_gated(self, self.config, x_BTD, y_BTHK, self.config.mixer.gate)
        return merge(self, self.config, y_BTHK), state
