"""Softmax attention over the last tokens as a sequence mixer; its state never grows."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig, SlidingWindowConfig
from hope_jax.layers.heads import merge, project
from hope_jax.ops.rope import rope
from hope_jax.ops.window import WindowCache, empty_cache, window_attention


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
        mixer: SlidingWindowConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        heads, size = mixer.heads, dim // mixer.heads
        q_BTHK, k_BTHK, v_BTHK = (
            project(self, name, x_BTD, heads, size) for name in ("query", "key", "value")
        )
        if time == 0:
            empty = empty_cache(batch, mixer.window, heads, size, x_BTD.dtype)
            return x_BTD, empty if state is None else state

        position_BT = jnp.arange(time, dtype=jnp.int32)[None]
        if state is not None:
            position_BT = state.length_B[:, None] + position_BT
        position_BT = jnp.broadcast_to(position_BT, (batch, time))
        q_BTHK = rope(q_BTHK, position_BT, mixer.rope_theta)
        k_BTHK = rope(k_BTHK, position_BT, mixer.rope_theta)
        y_BTHK, state = window_attention(
            q_BTHK, k_BTHK, v_BTHK, mixer.window, state, reset_BT, block=mixer.block
        )
        return merge(self, self.config, y_BTHK), state
