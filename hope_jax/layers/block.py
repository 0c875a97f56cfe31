"""One block: a sequence mixer, then the Continuum Memory System, both residual."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax

from hope_jax.config import ModelConfig
from hope_jax.layers.continuum import ContinuumMemory
from hope_jax.layers.fast_weights import FastWeights
from hope_jax.layers.norm import RMSNorm
from hope_jax.layers.registry import make_mixer


class Block(nn.Module):
    """`h = x + mixer(norm(x)); y = cms(h)` (Eqs. 94-97 with norms and residuals)."""

    config: ModelConfig
    writes: bool = True
    part: Literal["whole", "mixer", "cms"] = "whole"  # a part is applied to a block's weights

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: Any,
        reset_BT: jax.Array | None,
        fast: FastWeights | None = None,
    ) -> tuple[jax.Array, Any]:
        if self.part != "cms":
            mixer = make_mixer(self.config, name="mixer")
            inputs_BTD = x_BTD
            if not getattr(mixer, "takes_stream", False):
                inputs_BTD = RMSNorm(self.config.norm_eps, name="mixer_norm")(x_BTD)
            mixed_BTD, state = mixer(inputs_BTD, state, reset_BT, writes=self.writes)
            x_BTD = x_BTD + mixed_BTD
        if self.part != "mixer":
            x_BTD = ContinuumMemory(self.config, name="cms")(x_BTD, fast)
        # the residual stream is split over the batch only
        return nn.with_logical_constraint(x_BTD, ("batch", "time", None)), state
