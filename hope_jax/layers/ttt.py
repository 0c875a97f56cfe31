"""TTT-Linear and TTT-MLP as sequence mixers (Sun et al. 2024, arXiv:2407.04620).

The recurrence is `hope_jax.ops.ttt`; this module owns the slow weights: the inner models'
initial weights and LayerNorm, projections, convolutions, rates, and the output's norm and
gate. The backbones are those of the published code, without the convolution that its Mamba
backbone has in front of the whole layer.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig, TTTLinearConfig, TTTMLPConfig
from hope_jax.layers.heads import FEW_TOKENS, count_writes
from hope_jax.layers.linear import constant, einsum, output_std, weight
from hope_jax.layers.per_device import BY_HEAD, BY_TIME, ROWS, WEIGHTS, WHOLE, on_each_device
from hope_jax.ops.conv import causal_conv
from hope_jax.ops.recompute import recomputed
from hope_jax.ops.rope import rope
from hope_jax.ops.ttt import (
    Affine,
    InnerModel,
    Tokens,
    TTTState,
    initial_state,
    places,
    read_by_chunk,
    read_token_by_token,
)


@flax.struct.dataclass
class TTTMixerState:
    """Fast state of one layer.

    Attributes:
      inner: the inner models, and the gradients of the chunk that is open.
      tail_BKD: the last inputs of the convolutions; None without convolutions.
    """

    inner: TTTState
    tail_BKD: jax.Array | None


class TTT(nn.Module):
    """Inner models that are trained on every sequence while it is read, one for each head."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: TTTMixerState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, TTTMixerState]:
        """Write every token, and read it from the inner model that it has changed.

        Args:
          x_BTD: normalised inputs.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves the inner models as they are, and the open chunk open.
        """
        mixer: TTTLinearConfig | TTTMLPConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        heads, size = mixer.heads, dim // mixer.heads
        convolved = mixer.backbone == "mamba"
        model = self._inner_model(heads, size)
        weights = self._projections(dim, heads, size)
        per_token_C = 1 / jnp.arange(1.0, mixer.chunk + 1)
        offset_C = constant(self, "step_offset", (mixer.chunk,), (None,), 0.0)
        step_C = jnp.maximum(per_token_C + offset_C, 0.0)
        out_std = output_std(self.config, dim)
        w_out = weight(
            self, "w_out", (heads, size, dim), ("heads", "head_dim", "embed"), out_std
        )
        norm = (
            constant(self, "read_norm_scale", (heads, size), ("heads", "head_dim"), 1.0),
            constant(self, "read_norm_bias", (heads, size), ("heads", "head_dim"), 0.0),
        )
        if time == 0:
            if state is None:
                tail_BKD = jnp.zeros((batch, mixer.conv - 1, dim), x_BTD.dtype)
                inner = initial_state(model, batch, mixer.chunk)
                state = TTTMixerState(inner, tail_BKD if convolved else None)
            return x_BTD, state

        inner = None if state is None else state.inner
        place_BT = places(mixer.chunk, batch, time, inner, reset_BT, writes)

        def prepare(x_BTD, weights):
            tail_BKD = None if state is None else state.tail_BKD
            if convolved:
                shared_BTHK = einsum("btd,dhk->bthk", x_BTD, weights["w_query_key"])
                shared_BTD = shared_BTHK.reshape(batch, time, dim)
                convolve = lambda kernel: causal_conv(shared_BTD, kernel, tail_BKD, reset_BT)
                q_BTD, _ = convolve(weights["conv_query"])
                k_BTD, tail_BKD = convolve(weights["conv_key"])
                q_BTHK, k_BTHK = (x.reshape(batch, time, heads, size) for x in (q_BTD, k_BTD))
            else:
                q_BTHK = einsum("btd,dhk->bthk", x_BTD, weights["w_query"])
                k_BTHK = einsum("btd,dhk->bthk", x_BTD, weights["w_key"])
            logit_BTH = einsum(
                "btd,dh->bth", x_BTD, weights["w_rate"], result=jnp.float32
            ) + jnp.broadcast_to(weights["b_rate"], (batch, time, heads))
            tokens = Tokens(
                rope(q_BTHK, place_BT, mixer.rope_theta),
                rope(k_BTHK, place_BT, mixer.rope_theta),
                einsum("btd,dhk->bthk", x_BTD, weights["w_value"]),
                mixer.base_rate / size * nn.sigmoid(logit_BTH),
            )
            return tokens, tail_BKD

        tokens, tail_BKD = recomputed(prepare)(x_BTD, weights)
        eps = self.config.norm_eps
        if inner is not None and time <= FEW_TOKENS and writes:
            read = functools.partial(read_token_by_token, eps=eps)
        else:
            read = functools.partial(
                read_by_chunk, writes=writes, eps=eps, remat_chunks=mixer.remat_chunks
            )
        read = on_each_device(
            read, (WEIGHTS, BY_TIME, WHOLE, BY_HEAD, ROWS), (BY_TIME, BY_HEAD)
        )
        y_BTHK, inner = read(model, tokens, step_C, inner, reset_BT)
        count_writes(self, tokens.eta_BTH.size, writes)

        def finish(y_BTHK, norm, w_out, *gate_BTHK):
            # over all heads, as the published layer has it
            centred_BTHK = y_BTHK - y_BTHK.mean((2, 3), keepdims=True)
            variance = jnp.mean(centred_BTHK**2, (2, 3), keepdims=True)
            scale_HK, bias_HK = norm
            y_BTHK = centred_BTHK * jax.lax.rsqrt(variance + eps) * scale_HK[None, None]
            y_BTHK = (y_BTHK + bias_HK[None, None]).astype(x_BTD.dtype)
            for gate in gate_BTHK:
                y_BTHK = y_BTHK * nn.gelu(gate)
            return einsum("bthk,hkd->btd", y_BTHK, w_out)

        gate_BTHK = ()
        if convolved:
            gate_BTHK = (einsum("btd,dhk->bthk", x_BTD, weights["w_gate"]),)
        y_BTD = recomputed(finish)(y_BTHK, norm, w_out, *gate_BTHK)
        return y_BTD, TTTMixerState(inner, tail_BKD)

    def _inner_model(self, heads: int, size: int) -> InnerModel:
        """Initial inner models, learnt across sequences."""
        mixer = self.config.mixer
        widths = (size, size)
        if isinstance(mixer, TTTMLPConfig):
            hidden = 4 * size if mixer.hidden is None else mixer.hidden
            widths = (size, hidden, size)
        layers = []
        for index, name in enumerate(("memory_in", "memory_out")[: len(widths) - 1]):
            shape = (heads, *widths[index : index + 2])
            out = "hidden" if index + 2 < len(widths) else "head_dim"
            w = weight(self, name, shape, ("heads", "memory", out), 0.02, jnp.float32)
            b = constant(self, f"{name}_bias", (heads, shape[2]), ("heads", out), 0.0)
            layers.append(Affine(w, b))
        shape, axes = (heads, size), ("heads", "head_dim")
        return InnerModel(
            tuple(layers),
            constant(self, "memory_norm_scale", shape, axes, 1.0),
            constant(self, "memory_norm_bias", shape, axes, 0.0),
        )

    def _projections(self, dim: int, heads: int, size: int) -> dict[str, jax.Array]:
        """Weights of what is the same for all tokens."""
        mixer, weights = self.config.mixer, {}
        shape, axes = (dim, heads, size), ("embed", "heads", "head_dim")
        names = ["w_value"]
        if mixer.backbone == "mamba":
            names += ["w_query_key", "w_gate"]
            for name in ("conv_query", "conv_key"):
                weights[name] = weight(
                    self, name, (mixer.conv, dim), (None, "embed"), mixer.conv**-0.5
                )
        else:
            names += ["w_query", "w_key"]
        for name in names:
            weights[name] = weight(self, name, shape, axes, dim**-0.5)
        weights["w_rate"] = weight(self, "w_rate", (dim, heads), ("embed", "heads"), 0.02)
        weights["b_rate"] = constant(self, "b_rate", (heads,), ("heads",), 0.0)
        return weights
