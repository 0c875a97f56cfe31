"""Continuum Memory System: a chain of MLPs that are updated at different periods."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.layers.fast_weights import FastWeights, Moved
from hope_jax.layers.linear import compute_dtype, constant, einsum, output_std, weight
from hope_jax.layers.norm import rms_norm
from hope_jax.ops.recompute import recomputed


def level_mlp(
    params: Mapping[str, jax.Array | Moved], x_BTD: jax.Array, *, eps: float = 1e-6
) -> jax.Array:
    """The MLP of one level, without its residual: a pure function of its parameters.

    Args:
      params: `norm_scale` (D,), `w_in` (D, F), `w_out` (F, D) and, for SwiGLU, `w_gate`
        (D, F); without `w_gate` the activation is GELU. A matrix may be `Moved`.
      x_BTD: the residual stream.
      eps: of the normalisation before the MLP.

    Returns:
      `w_out (silu(w_gate n) * w_in n)` or `w_out gelu(w_in n)` with `n = rms_norm(x)`.
    """

    def project(params, x_BTD):
        normed_BTD = rms_norm(x_BTD, params["norm_scale"], eps)
        names = [name for name in ("w_gate", "w_in") if name in params]
        return [_project(normed_BTD, params[name]) for name in names]

    def activate(w_out, first_BTF, *gated_BTF):
        hidden_BTF = jax.nn.gelu(first_BTF)
        if gated_BTF:
            hidden_BTF = jax.nn.silu(first_BTF) * gated_BTF[0]
        return _project(hidden_BTF, w_out)

    # the backward pass keeps the input and what the products with w_in and w_gate gave
    projected = recomputed(project)(params, x_BTD)
    return recomputed(activate)(params["w_out"], *projected)


def _project(x_BTD: jax.Array, w: jax.Array | Moved) -> jax.Array:
    return w.project(x_BTD) if isinstance(w, Moved) else einsum("btd,df->btf", x_BTD, w)


class Level(nn.Module):
    """Parameters of one CMS level; the computation is `level_mlp`.

    With fast weights whose level has a view, the level's own loss of every token but the last
    is sown in the collection "local", `[B, T - 1]`: half the squared distance between what it
    adds to the stream and its view of what it is given at the next token.
    """

    config: ModelConfig
    hidden: int

    @nn.compact
    def __call__(self, x_BTD: jax.Array, fast: FastWeights | None = None) -> jax.Array:
        dim, hidden = self.config.dim, self.hidden
        whole = fast is not None and self.config.cms.in_context.rank is None
        dtype = jnp.float32 if whole else compute_dtype(self.config)
        norm = {"norm_scale": constant(self, "norm_scale", (dim,), ("embed",), 1.0)}
        inwards = (dim, hidden), ("embed", "mlp"), dim**-0.5, dtype
        weights = {"w_in": weight(self, "w_in", *inwards)}
        if self.config.cms.activation == "swiglu":
            weights["w_gate"] = weight(self, "w_gate", *inwards)
        out_std = output_std(self.config, hidden)
        outwards = (hidden, dim), ("mlp", "embed"), out_std, dtype
        weights["w_out"] = weight(self, "w_out", *outwards)
        eps = self.config.norm_eps
        if fast is None:
            return level_mlp(weights | norm, x_BTD, eps=eps)

        def read(added, x_BTD):
            moved = {k: Moved(w, added[k]) for k, w in weights.items()}
            return level_mlp(moved | norm, x_BTD, eps=eps)

        def add(x_BTD):
            y_BTD = read(fast.added[self.name], x_BTD)
            if fast.fresh_BT is None:
                return y_BTD
            new = lambda: read(fast.begun[self.name], x_BTD)
            return jax.lax.cond(
                fast.fresh_BT.any(),
                lambda: jnp.where(fast.fresh_BT[..., None], new(), y_BTD),
                lambda: y_BTD,
            )

        if fast.views is not None:
            seen_BTD = jax.lax.stop_gradient(x_BTD)
            normed_BTD = rms_norm(seen_BTD, norm["norm_scale"], eps).astype(jnp.float32)
            wanted_BTD = jnp.einsum("btd,de->bte", normed_BTD[:, 1:], fast.views[self.name])
            errors_BTD = add(seen_BTD)[:, :-1].astype(jnp.float32) - wanted_BTD
            self.sow("local", "loss", 0.5 * jnp.sum(errors_BTD**2, axis=-1))
        return add(x_BTD)


class ContinuumMemory(nn.Module):
    """CMS (Eqs. 70-74): one MLP with its own norm and residual per period, fastest first.

    `sequential` and `nested` chain the levels, `y = x; y += MLP_p(y)` for each period p
    (Eq. 70); they differ in how the outer levels are updated, not here. `independent`
    adds a learned weighted sum of levels that all read `x` (Eq. 74). The feed-forward
    budget `config.cms_hidden` is split across the levels.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array, fast: FastWeights | None = None) -> jax.Array:
        periods = self.config.cms.periods
        widths = self.config.cms.split_hidden(self.config.cms_hidden)
        levels = [
            functools.partial(
                Level(self.config, width, name=f"period_{period}"),
                fast=fast if fast is not None and f"period_{period}" in fast.added else None,
            )
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
