"""Continuum Memory System: a chain of MLPs that are updated at different periods."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax

from hope_jax.config import ModelConfig
from hope_jax.layers.linear import constant, einsum, output_std, weight
from hope_jax.layers.norm import rms_norm
from hope_jax.ops.recompute import recomputed


def level_mlp(
    params: Mapping[str, jax.Array], x_BTD: jax.Array, *, eps: float = 1e-6
) -> jax.Array:
    """The MLP of one level, without its residual: a pure function of its parameters.

    Args:
      params: `norm_scale` (D,), `w_in` (D, F), `w_out` (F, D) and, for SwiGLU, `w_gate`
        (D, F); without `w_gate` the activation is GELU.
      x_BTD: the residual stream.
      eps: of the normalisation before the MLP.

    Returns:
      `w_out (silu(w_gate n) * w_in n)` or `w_out gelu(w_in n)` with `n = rms_norm(x)`.
    """

    def project(params, x_BTD):
        normed_BTD = rms_norm(x_BTD, params["norm_scale"], eps)
        names = [name for name in ("w_gate", "w_in") if name in params]
        return [einsum("btd,df->btf", normed_BTD, params[name]) for name in names]

    def activate(w_out, first_BTF, *gated_BTF):
        hidden_BTF = jax.nn.gelu(first_BTF)
        if gated_BTF:
            hidden_BTF = jax.nn.silu(first_BTF) * gated_BTF[0]
        return einsum("btf,fd->btd", hidden_BTF, w_out)

    # the backward pass keeps the input and what the products with w_in and w_gate gave
    projected = recomputed(project)(params, x_BTD)
    return recomputed(activate)(params["w_out"], *projected)


def split_hidden(hidden: int, levels: int) -> tuple[int, ...]:
    """Hidden widths of the levels, fastest first; they add up to `hidden`.

    >>> split_hidden(8, 3)
    (3, 3, 2)
    """
    return tuple(hidden // levels + (level < hidden % levels) for level in range(levels))


class Level(nn.Module):
    """Parameters of one CMS level; the computation is `level_mlp`."""

    config: ModelConfig
    hidden: int

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        dim, hidden = self.config.dim, self.hidden
        params = {
            "norm_scale": constant(self, "norm_scale", (dim,), ("embed",), 1.0),
            "w_in": weight(self, "w_in", (dim, hidden), ("embed", "mlp"), dim**-0.5),
        }
        if self.config.cms.activation == "swiglu":
            params["w_gate"] = weight(
                self, "w_gate", (dim, hidden), ("embed", "mlp"), dim**-0.5
            )
        out_std = output_std(self.config, hidden)
        params["w_out"] = weight(self, "w_out", (hidden, dim), ("mlp", "embed"), out_std)
        return level_mlp(params, x_BTD, eps=self.config.norm_eps)


class ContinuumMemory(nn.Module):
    """CMS (Eqs. 70-74): one MLP with its own norm and residual per period, fastest first.

    `sequential` and `nested` chain the levels, `y = x; y += MLP_p(y)` for each period p
    (Eq. 70); they differ in how the outer levels are updated, not here. `independent`
    adds a learned weighted sum of levels that all read `x` (Eq. 74). The feed-forward
    budget `config.cms_hidden` is split across the levels.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        periods = self.config.cms.periods
        widths = split_hidden(self.config.cms_hidden, len(periods))
        levels = [
            Level(self.config, width, name=f"period_{period}")
            for period, width in zip(periods, widths, strict=True)
        ]
        if self.config.cms.variant == "independent":
            # starts with the variance of a single MLP
            mix = constant(self, "mix", (len(levels),), (None,), len(levels) ** -0.5)
            outputs = [
                level(x_BTD) * mix[i].astype(x_BTD.dtype) for i, level in enumerate(levels)
            ]
            return x_BTD + sum(outputs[1:], start=outputs[0])
        for level in levels:
            x_BTD = x_BTD + level(x_BTD)
        return x_BTD
