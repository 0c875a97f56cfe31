"""RetNet's retention as a sequence mixer: linear attention that forgets at fixed rates."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig, RetNetConfig
from hope_jax.layers.heads import merge, normed_and_gated, project, read_memory
from hope_jax.ops.linear_recurrence import Tokens, empty_memory
from hope_jax.ops.rope import rope


@flax.struct.dataclass
class RetNetState:
    """Fast state."""

    memory_BHKV: jax.Array  # float32, of rotated keys
    length_B: jax.Array  # tokens read


def decays(heads: int) -> jax.Array:
    """Retention of each head, `1 - 2^(-5 - h)`: the first forgets within some 32 tokens.

    >>> decays(3).tolist()
    [0.96875, 0.984375, 0.9921875]
    """
    return 1 - 2.0 ** (-5 - jnp.arange(heads, dtype=jnp.float32))


class RetNet(nn.Module):
    """Multi-scale retention with rotary positions and a gate (Sun et al. 2023).

    Keys are divided by the root of their size. Each head's read is normalised.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: RetNetState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, RetNetState]:
        """Write every token, then read it.

        `writes=False` reads from a memory that stands still; positions go on.
        """
        config: RetNetConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        size, width = config.sizes(dim)
        q_BTHK = project(self, "q", x_BTD, config.heads, size)
        k_BTHK = project(self, "k", x_BTD, config.heads, size) * size**-0.5
        v_BTHV = project(self, "v", x_BTD, config.heads, width)
        if time == 0:
            fresh = empty_memory(Tokens(q_BTHK, k_BTHK, v_BTHV))
            return x_BTD, state or RetNetState(fresh, jnp.zeros((batch,), jnp.int32))
        length_B = jnp.zeros((batch,), jnp.int32) if state is None else state.length_B
        position_BT = length_B[:, None] + jnp.arange(time, dtype=jnp.int32)[None]
        tokens = Tokens(
            rope(q_BTHK, position_BT, config.rope_theta),
            rope(k_BTHK, position_BT, config.rope_theta),
            v_BTHV,
            alpha_BTH=jnp.broadcast_to(decays(config.heads), (batch, time, config.heads)),
        )
        y_BTHV, memory_BHKV = read_memory(self, tokens, state, reset_BT, writes)
        y_BTHV = normed_and_gated(self, self.config, x_BTD, y_BTHV, config.gate)
        return merge(self, self.config, y_BTHV), RetNetState(memory_BHKV, length_B + time)
