"""Fast weights of a batch of texts, and what updates them."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.layers.fast_weights import Weights, moving, moving_shapes
from hope_jax.layers.linear import constrain
from hope_jax.models.in_context.inner import inner_levels
from hope_jax.nested import LevelsState


@flax.struct.dataclass
class Fast:
    """Fast weights of a batch of texts, and what updates them.

    Attributes:
      weights: by level and weight, float32 `[blocks, B, rows, columns]`, of the blocks that
        have the level; with `rank`, the right factors `[blocks, B, rank, columns]`.
      levels: state of the engine; its arrays have rows of the batch first.
      forgot: by level, `[B]`: whether a document began since the level's last update.
    """

    weights: Weights
    levels: LevelsState
    forgot: dict[str, jax.Array]

    def in_sight(self) -> Weights:
        """The weights without those of documents that are over."""

        def keep(level, w):
            return jnp.where(self.forgot[level].reshape(1, -1, 1, 1), 0, w)

        return {
            level: {name: keep(level, w) for name, w in matrices.items()}
            for level, matrices in self.weights.items()
        }


def placed(weights: Weights, rank: int | None) -> Weights:
    """Fast weights where their rows of the batch are, split over a mesh like slow ones."""

    def place(name, w):
        inwards = name != "w_out"
        rows = "mlp" if not inwards and rank is None else None
        return constrain(w, ("layers", "batch", rows, "mlp" if inwards else None))

    return {
        level: {name: place(name, w) for name, w in matrices.items()}
        for level, matrices in weights.items()
    }


def fresh_fast(config: ModelConfig, params: Any, batch: int) -> Fast:
    """Nothing added yet, for so many texts."""
    rank, levels = config.cms.in_context.rank, moving(config)

    def zeros(level, rows, columns):
        blocks = len(levels[level].blocks)
        return jnp.zeros((blocks, batch, rank or rows, columns), jnp.float32)

    weights = {
        level: {name: zeros(level, *shape) for name, shape in matrices.items()}
        for level, matrices in moving_shapes(config).items()
    }
    weights = placed(weights, rank)
    forgot = {level: jnp.zeros(batch, bool) for level in weights}
    return Fast(weights, inner_levels(config, params).init(weights), forgot)
