"""Softmax attention over the last tokens as a sequence mixer; its state never grows."""

from __future__ import annotations

import flax.linen as nn
import jax

from hope_jax.config import ModelConfig
from hope_jax.layers.heads import merge
from hope_jax.layers.window import attend_window, attention_projections
from hope_jax.ops.window import WindowCache


class SlidingWindowAttention(nn.Module):
    """Causal multi-head attention over a window, with rotary positions and no biases.

    As the attention of Transformer++ (see `hope_jax.layers.attention`), but a query sees the
    last `window` tokens alone (Beltagy et al. 2020, arXiv:2004.05150).
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: WindowCache | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, WindowCache]:
        """Mix `x_BTD` with the window before each token, as far as its document goes.

        Args:
          x_BTD: normalised inputs.
          state: the last tokens read; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: changes nothing: attention has no memory that learns.
        """
        del writes
        weights = attention_projections(self, x_BTD.shape[-1], self.config.mixer.heads)
        y_BTHK, state = attend_window(self, weights, x_BTD, state, reset_BT)
        if x_BTD.shape[1] == 0:
            return x_BTD, state
        return merge(self, self.config, y_BTHK), state
