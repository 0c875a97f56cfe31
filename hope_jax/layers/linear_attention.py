"""Linear attention as a sequence mixer: a sum of outer products as its state."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import LinearAttentionConfig, ModelConfig
from hope_jax.layers.heads import merge, normed_and_gated, project, read_memory
from hope_jax.ops.linear_recurrence import Tokens, empty_memory


@flax.struct.dataclass
class LinearAttentionState:
    """Fast state: with the normaliser "sum" the memory's last column is the sum of keys."""

    memory_BHKV: jax.Array  # float32


class LinearAttention(nn.Module):
    """`y = S^T phi(q)` over `phi(q)^T sum phi(k)` (Katharopoulos et al. 2020; Eq. 15).

    No positions, no convolution and no gate, as in the published model.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: LinearAttentionState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, LinearAttentionState]:
        """Write every token, then read it; `writes=False` reads alone.

        Before anything is written there is nothing to average, and reads are zero.
        """
        config: LinearAttentionConfig = self.config.mixer
        heads, size = config.heads, x_BTD.shape[-1] // config.heads
        q_BTHK, k_BTHK, v_BTHV = (project(self, n, x_BTD, heads, size) for n in "qkv")
        features = _FEATURES[config.feature_map]
        if config.normaliser == "sum":
            ones = jnp.ones_like(v_BTHV[..., :1])
            v_BTHV = jnp.concatenate([v_BTHV, ones], axis=-1)
        tokens = Tokens(features(q_BTHK), features(k_BTHK), v_BTHV)
        if x_BTD.shape[1] == 0:
            return x_BTD, state or LinearAttentionState(empty_memory(tokens))
        y_BTHV, memory_BHKV = read_memory(self, tokens, state, reset_BT, writes)
        if config.normaliser == "sum":
            y_BTHV, sum_BTH1 = y_BTHV[..., :-1], y_BTHV[..., -1:]
            y_BTHV = (y_BTHV / (sum_BTH1 + self.config.norm_eps)).astype(x_BTD.dtype)
        else:
            y_BTHV = normed_and_gated(self, self.config, x_BTD, y_BTHV, "none")
        return merge(self, self.config, y_BTHV), LinearAttentionState(memory_BHKV)


_FEATURES = {"elu": lambda x: nn.elu(x) + 1, "relu": nn.relu, "none": lambda x: x}
