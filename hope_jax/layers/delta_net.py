"""DeltaNet, Gated DeltaNet and Comba as sequence mixers: one module, three sets of gates."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import DeltaNetConfig, ModelConfig
from hope_jax.layers.heads import (
    convolved_roles,
    merge,
    normed_and_gated,
    project,
    read_memory,
    unit,
)
from hope_jax.layers.linear import (
    constant,
    conv_kernel,
    einsum,
    log_uniform_steps,
    parameter,
    weight,
)
from hope_jax.ops.linear_recurrence import Tokens, empty_memory


@flax.struct.dataclass
class DeltaNetState:
    """Fast state; E is the width of all heads of a role together.

    Attributes:
      memory_BHKV: float32 memory.
      tails: the last inputs `[B, conv - 1, E]` of the convolutions of q, k and v.
    """

    memory_BHKV: jax.Array
    tails: dict[str, jax.Array]


class DeltaNet(nn.Module):
    """A matrix memory that corrects what its keys read.

    DeltaNet (Yang et al. 2024), with data-dependent retention Gated DeltaNet (Yang et al.
    2025), with a scaled feedback and a corrected output Comba (Hu et al. 2025). Queries, keys
    and values pass a short convolution and SiLU; queries and keys have unit length. A query
    is then divided by the root of its size: what it reads is normalised per head, and reads
    that are nearly zero, because nothing like it was written, stay small.

    Comba reads at `q - D b k`, with the fraction b that it removes and with q and k of unit
    length, as its paper has it. Public code normalises after that, which cancels b in what
    is removed.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: DeltaNetState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, DeltaNetState]:
        """Write every token, then read it; `writes=False` reads alone."""
        config: DeltaNetConfig = self.config.mixer
        heads, (size, width) = config.heads, config.sizes(x_BTD.shape[-1])
        tokens, tails = self._roles({"q": size, "k": size, "v": width}, x_BTD, state, reset_BT)
        if x_BTD.shape[1] == 0:
            return x_BTD, state or DeltaNetState(empty_memory(tokens), tails)
        tokens = self._gates(tokens, x_BTD, heads)
        y_BTHV, memory_BHKV = read_memory(self, tokens, state, reset_BT, writes)
        y_BTHV = normed_and_gated(self, self.config, x_BTD, y_BTHV, config.gate)
        return merge(self, self.config, y_BTHV), DeltaNetState(memory_BHKV, tails)

    def _roles(self, sizes, x_BTD, state, reset_BT) -> tuple[Tokens, dict[str, jax.Array]]:
        """Queries, keys and values, and the convolutions' new tails."""
        config: DeltaNetConfig = self.config.mixer
        tails = dict.fromkeys(sizes) if state is None else state.tails
        projected, kernels = {}, {}
        for role, size in sizes.items():
            projected[role] = project(self, role, x_BTD, config.heads, size)
            if config.conv:
                shape, axes = (config.conv, config.heads, size), (None, "heads", "head_dim")
                kernels[role] = conv_kernel(self, f"conv_{role}", shape, axes)

        def finish(role: str, y_BTHK: jax.Array) -> jax.Array:
            y_BTHK = nn.silu(y_BTHK)
            if role != "v":
                y_BTHK = unit(y_BTHK)
            return y_BTHK * sizes["q"] ** -0.5 if role == "q" else y_BTHK

        new, tails = convolved_roles(projected, kernels, tails, reset_BT, finish)
        return Tokens(new["q"], new["k"], new["v"]), tails

    def _gates(self, tokens: Tokens, x_BTD: jax.Array, heads: int) -> Tokens:
        """Retention, strength and removal of every token, float32; Comba's corrected query."""
        config: DeltaNetConfig = self.config.mixer
        dim, f32 = x_BTD.shape[-1], jnp.float32

        def logit(name: str) -> jax.Array:
            w_DH = weight(self, f"w_{name}", (dim, heads), ("embed", "heads"), dim**-0.5)
            return einsum("btd,dh->bth", x_BTD, w_DH, result=f32)

        beta_BTH = removal_BTH = nn.sigmoid(logit("beta"))
        alpha_BTH = None
        if config.retention == "learned":
            bias_H = _per_head(self, "b_alpha", log_uniform_steps(1e-3, 0.1), heads)
            log_rate_H = _per_head(self, "log_rate", _log_rate, heads)
            step_BTH = nn.softplus(logit("alpha") + bias_H[None, None])
            alpha_BTH = jnp.exp(-jnp.exp(log_rate_H)[None, None] * step_BTH)
            self._sow("alpha", alpha_BTH)
        self._sow("beta", beta_BTH)
        q_BTHK = tokens.q_BTHK
        if config.feedback == "scaled":
            feedback_H = nn.sigmoid(constant(self, "b_feedback", (heads,), ("heads",), 1.0))
            removal_BTH = feedback_H[None, None] * beta_BTH
            start = config.initial_correction
            correction_H = (
                constant(self, "correction", (heads,), ("heads",), start) * feedback_H
            )
            correction_H1 = correction_H.astype(q_BTHK.dtype)[None, None, :, None]
            q_BTHK = q_BTHK - correction_H1 * tokens.k_BTHK * q_BTHK.shape[-1] ** -0.5
        elif alpha_BTH is not None:
            removal_BTH = alpha_BTH * beta_BTH
        return tokens.replace(
            q_BTHK=q_BTHK, alpha_BTH=alpha_BTH, beta_BTH=beta_BTH, removal_BTH=removal_BTH
        )

    def _sow(self, name: str, gate_BTH: jax.Array) -> None:
        """Means for logs."""
        if self.is_mutable_collection("stats"):
            self.sow("stats", name, jnp.mean(gate_BTH))


def _per_head(module: nn.Module, name: str, init, heads: int) -> jax.Array:
    return parameter(module, name, init, (heads,), ("heads",))


def _log_rate(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Logarithm of rates between 0 and 16; the smallest is kept away from 0."""
    return jnp.log(jax.random.uniform(key, shape, dtype, 1e-3, 16.0))
