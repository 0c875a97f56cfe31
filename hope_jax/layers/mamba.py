"""Mamba as a sequence mixer: selective state spaces behind a short convolution."""

from __future__ import annotations

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import MambaConfig, ModelConfig
from hope_jax.layers.heads import count_writes
from hope_jax.layers.linear import (
    constant,
    conv_kernel,
    einsum,
    log_uniform_steps,
    output_std,
    parameter,
    weight,
)
from hope_jax.layers.per_device import BY_TIME, ROWS, Split, on_each_device
from hope_jax.ops.conv import causal_conv
from hope_jax.ops.recompute import recomputed
from hope_jax.ops.selective_scan import Tokens, empty_state, gated, read_by_chunk, step


@flax.struct.dataclass
class MambaState:
    """Fast state.

    Attributes:
      memory_BNE: float32, what every channel remembers.
      tail_BKE: the last inputs of the convolution; None without one.
    """

    memory_BNE: jax.Array
    tail_BKE: jax.Array | None


class Mamba(nn.Module):
    """Channels that choose at every token how long they remember (Gu and Dao 2023).

    The block of arXiv:2312.00752, section 3.4: two projections of the input, one through a
    convolution, SiLU and the scan of `hope_jax.ops.selective_scan`, the other through SiLU as
    a gate of the first. Steps, b and c are projections of what the convolution gives, the
    steps through a low rank. The projection for the steps starts as a normal of the published
    variance, and the convolution with its current input passing.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: MambaState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, MambaState]:
        """Write every token, then read it; `writes=False` reads alone."""
        mixer: MambaConfig = self.config.mixer
        dim, f32 = x_BTD.shape[-1], jnp.float32
        channels, size, rank = mixer.channels(dim), mixer.state_size, mixer.rank(dim)
        into, along = ("embed", "mlp"), ("mlp",)
        w_expand_DE = weight(self, "w_expand", (dim, channels), into, dim**-0.5)
        w_gate_DE = weight(self, "w_expand_gate", (dim, channels), into, dim**-0.5)
        w_select_EZ = weight(
            self, "w_select", (channels, rank + 2 * size), ("mlp", "memory"), channels**-0.5
        )
        w_step_RE = weight(
            self, "w_step", (rank, channels), ("memory", "mlp"), (3 * rank) ** -0.5
        )
        steps = log_uniform_steps(mixer.min_step, mixer.max_step)
        b_step_E = parameter(self, "b_step", steps, (channels,), along)
        log_rate_NE = parameter(self, "log_rate", _log_rate, (size, channels), (None, "mlp"))
        skip_E = constant(self, "skip", (channels,), along, 1.0)
        out_std = output_std(self.config, channels)
        w_contract_ED = weight(self, "w_contract", (channels, dim), ("mlp", "embed"), out_std)

        inner_BTE = einsum("btd,de->bte", x_BTD, w_expand_DE)
        gate_BTE = einsum("btd,de->bte", x_BTD, w_gate_DE)
        inner_BTE, tail_BKE = self._convolve(inner_BTE, state, reset_BT)
        if x_BTD.shape[1] == 0:
            memory_BNE = jnp.zeros((x_BTD.shape[0], size, channels), f32)
            return x_BTD, state or MambaState(memory_BNE, tail_BKE)

        selected_BTZ = einsum("bte,ez->btz", inner_BTE, w_select_EZ)
        low_BTR, b_BTN, c_BTN = jnp.split(selected_BTZ, [rank, rank + size], axis=-1)
        logit_BTE = einsum("btr,re->bte", low_BTR, w_step_RE, result=f32)
        dt_BTE = recomputed(lambda x, b: nn.softplus(x + b[None, None]))(logit_BTE, b_step_E)
        tokens = Tokens(inner_BTE, dt_BTE, b_BTN, c_BTN)
        y_BTE, memory_BNE = self._scan(tokens, -jnp.exp(log_rate_NE), state, reset_BT, writes)

        def finish(y_BTE, inner_BTE, gate_BTE, skip_E):
            y_BTE = (y_BTE + skip_E[None, None] * inner_BTE).astype(x_BTD.dtype)
            return y_BTE * nn.silu(gate_BTE)

        y_BTE = recomputed(finish)(y_BTE, inner_BTE, gate_BTE, skip_E)
        y_BTD = einsum("bte,ed->btd", y_BTE, w_contract_ED)
        return y_BTD, MambaState(memory_BNE, tail_BKE)

    def _convolve(self, x_BTE, state, reset_BT) -> tuple[jax.Array, jax.Array | None]:
        """Convolution, bias and SiLU, and the convolution's new tail."""
        width, channels = self.config.mixer.conv, x_BTE.shape[-1]
        if not width:
            return recomputed(nn.silu)(x_BTE), None
        kernel_KE = conv_kernel(self, "conv", (width, channels), (None, "mlp"))
        bias_E = constant(self, "conv_bias", (channels,), ("mlp",), 0.0)
        tail_BKE = None if state is None else state.tail_BKE

        def convolve(x_BTE, kernel_KE, bias_E, tail_BKE):
            y_BTE, tail_BKE = causal_conv(x_BTE, kernel_KE, tail_BKE, reset_BT)
            return nn.silu(y_BTE + bias_E.astype(y_BTE.dtype)[None, None]), tail_BKE

        return recomputed(convolve)(x_BTE, kernel_KE, bias_E, tail_BKE)

    def _scan(self, tokens, a_NE, state, reset_BT, writes) -> tuple[jax.Array, jax.Array]:
        """By chunk, or one step for a single token; counts the writes for logs."""
        mixer, (batch, time, _) = self.config.mixer, tokens.x_BTE.shape
        memory_BNE = empty_state(tokens) if state is None else state.memory_BNE
        count_writes(self, batch * time, writes)
        if state is not None and time == 1:
            token = jax.tree.map(lambda x: x[:, 0], gated(tokens, reset_BT, writes))
            y_BE, memory_BNE = step(memory_BNE, token, a_NE)
            return y_BE[:, None], memory_BNE
        read = functools.partial(
            read_by_chunk, writes=writes, chunk=mixer.chunk, remat=mixer.remat
        )
        # channels are in the place of heads; what is selected is the same for all of them
        channels = Tokens(BY_TIME, BY_TIME, ROWS, ROWS)
        read = on_each_device(
            read, (channels, Split(None, 1), BY_TIME, ROWS), (BY_TIME, BY_TIME)
        )
        return read(tokens, a_NE, memory_BNE, reset_BT)


def _log_rate(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Rates 1 to N in every channel."""
    del key
    rate_N = jnp.arange(1, shape[0] + 1, dtype=dtype)
    return jnp.broadcast_to(jnp.log(rate_N)[:, None], shape)
