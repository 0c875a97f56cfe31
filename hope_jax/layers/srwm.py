"""The self-referential weight matrix as a sequence mixer (Irie et al. 2022,
arXiv:2202.05780); its recurrence is `hope_jax.ops.srwm`."""

from __future__ import annotations

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig, SRWMConfig
from hope_jax.layers.heads import count_writes, merge
from hope_jax.layers.linear import parameter, weight
from hope_jax.layers.per_device import BY_HEAD, BY_TIME, ROWS, WEIGHTS, on_each_device
from hope_jax.ops.srwm import BETAS, read_by_token


@flax.struct.dataclass
class SRWMState:
    """Fast state: the matrices as they are now, O being what a head's matrix makes."""

    memory_BHKO: jax.Array  # float32


class SRWM(nn.Module):
    """Matrices that make their own queries, keys and rates, one for each head.

    As published: a head reads its part of the input as it is, no projection and no
    convolution before it, no norm after it, one output projection. Only the residual is the
    block's, where the published layer adds its normalised input. It takes as many sequential
    steps as there are tokens.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: SRWMState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, SRWMState]:
        """Read every token from the matrices that those before it have left, then write it.

        Args:
          x_BTD: normalised inputs.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves the matrices as they are.
        """
        mixer: SRWMConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        heads, size = mixer.heads, dim // mixer.heads
        initial_HKO = self._initial(heads, size)
        if time == 0:
            if state is None:
                state = SRWMState(
                    jnp.broadcast_to(initial_HKO[None], (batch, *initial_HKO.shape))
                )
            return x_BTD, state
        # No product comes first, and left to itself the compiler cuts the width over devices
        # for the heads, where XLA's partitioner has got rows of the batch wrong.
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "time", None))
        x_BTHK = x_BTD.reshape(batch, time, heads, size)
        if mixer.input_features == "softmax":
            x_BTHK = nn.softmax(x_BTHK.astype(jnp.float32))
        read = functools.partial(
            read_by_token, writes=writes, chunk=mixer.chunk, remat=mixer.remat
        )
        read = on_each_device(read, (WEIGHTS, BY_TIME, BY_HEAD, ROWS), (BY_TIME, BY_HEAD))
        memory_BHKO = None if state is None else state.memory_BHKO
        y_BTHK, memory_BHKO = read(initial_HKO, x_BTHK, memory_BHKO, reset_BT)
        count_writes(self, x_BTHK[..., 0].size, writes)
        return merge(self, self.config, y_BTHK.astype(x_BTD.dtype)), SRWMState(memory_BHKO)

    def _initial(self, heads: int, size: int) -> jax.Array:
        """Initial matrices: slow weights, learnt across sequences."""
        mixer: SRWMConfig = self.config.mixer
        shape, axes = (heads, size, size), ("heads", "memory", "head_dim")
        std = size**-0.5

        def betas(key, shape, dtype):
            return mixer.beta_mean + std * jax.random.normal(key, shape, dtype)

        parts = [
            weight(self, f"memory_{name}", shape, axes, scale * std, jnp.float32)
            for name, scale in (("y", 1.0), ("q", mixer.query_scale), ("k", 1.0))
        ]
        parts.append(parameter(self, "memory_beta", betas, (heads, size, BETAS), axes))
        return jnp.concatenate(parts, axis=-1)
