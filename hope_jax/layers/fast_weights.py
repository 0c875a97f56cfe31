"""What a text adds to the weights of the CMS, and the slow weights that say how."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.layers.linear import constant, einsum, weight

# by level ("period_4", or in a stack "chunk_512") and weight ("w_in")
Weights = dict[str, dict[str, Any]]


@flax.struct.dataclass
class LowRank:
    """What is added to a matrix, as a product of two thin ones."""

    left_DR: jax.Array  # slow, the same for all texts
    right_BRF: jax.Array


@flax.struct.dataclass
class FastWeights:
    """What is added to the weights of a block's CMS: float32 `[B, D, F]` or `LowRank`.

    Attributes:
      added: by level of the block, for tokens of the text that the row has been reading; levels
        that are not in it have their slow weights alone.
      begun: for tokens of a document that began since the last update; zeros, of which the
        gradient is what that document learns. None: there is no such document.
      fresh_BT: True for its tokens.
      views: by level, the matrix through which it sees the next token's input, as what it is
        to predict; None: the level has no loss of its own.
    """

    added: Weights
    begun: Weights | None = None
    fresh_BT: jax.Array | None = None
    views: dict[str, jax.Array] | None = None


@flax.struct.dataclass
class Moved:
    """A matrix of the CMS as one text has it."""

    slow_DF: jax.Array
    added: jax.Array | LowRank

    def project(self, x_BTD: jax.Array) -> jax.Array:
        """`x (slow + added)`, in the type of x."""
        if isinstance(self.added, LowRank):
            left_DR, right_BRF = self.added.left_DR, self.added.right_BRF.astype(x_BTD.dtype)
            thin_BTR = einsum("btd,dr->btr", x_BTD, left_DR)
            return einsum("btd,df->btf", x_BTD, self.slow_DF) + thin_BTR @ right_BRF
        # in float32, where small numbers are added to large ones
        moved_BDF = (self.slow_DF[None] + self.added).astype(x_BTD.dtype)
        return jnp.einsum("btd,bdf->btf", x_BTD, moved_BDF, preferred_element_type=x_BTD.dtype)


@dataclasses.dataclass(frozen=True)
class MovingLevel:
    """A level that moves within a text.

    Attributes:
      chunk: tokens per update.
      part: its name in the CMS of a block.
      blocks: which of the blocks that adapt have it, counted from the first of them.
      rate: inner learning rate at the start.
    """

    chunk: int
    part: str
    blocks: tuple[int, ...]
    rate: float


def moving(config: ModelConfig) -> dict[str, MovingLevel]:
    """The levels that move within a text, by name, fastest first.

    >>> from hope_jax.config import CMSConfig, InContextConfig
    >>> how = InContextConfig(chunks=(64, 512), blocks=3, stack="interleaved")
    >>> levels = moving(ModelConfig(cms=CMSConfig(in_context=how)))
    >>> {name: level.blocks for name, level in levels.items()}
    {'chunk_64': (0, 2), 'chunk_512': (1,)}
    """
    cms, how = config.cms, config.cms.in_context
    periods = cms.periods * len(how.chunks) if how.stacked else cms.periods
    rates, levels = iter(how.rates), {}
    for i, (period, chunk) in enumerate(zip(periods, how.chunks, strict=True)):
        if chunk:
            part = f"period_{period}"
            name = f"chunk_{chunk}" if how.stacked else part
            blocks = how.blocks_of(i, config.depth)
            levels[name] = MovingLevel(chunk, part, blocks, next(rates))
    return levels


def moving_levels(config: ModelConfig) -> dict[str, int]:
    """Tokens per update of each level that moves within a text, by its name, fastest first."""
    return {name: level.chunk for name, level in moving(config).items()}


def moving_shapes(config: ModelConfig) -> dict[str, dict[str, tuple[int, int]]]:
    """Rows and columns of the matrices of each level that moves."""
    cms, dim = config.cms, config.dim
    inward = ("w_in", "w_gate") if cms.activation == "swiglu" else ("w_in",)
    widths = dict(zip(cms.periods, cms.split_hidden(config.cms_hidden), strict=True))
    hidden_of = {f"period_{period}": hidden for period, hidden in widths.items()}
    shapes = {}
    for name, level in moving(config).items():
        hidden = hidden_of[level.part]
        shapes[name] = dict.fromkeys(inward, (dim, hidden)) | {"w_out": (hidden, dim)}
    return shapes


def by_part(config: ModelConfig, found: dict[str, Any]) -> dict[str, Any]:
    """What levels have, `[blocks of the level, ...]`, as parts of all blocks that adapt.

    Args:
      config: of the model.
      found: by level; trees of arrays.

    Returns:
      by the name in a block, `[blocks that adapt, ...]`.
    """
    levels = moving(config)
    if not config.cms.in_context.stacked:
        return {levels[name].part: tree for name, tree in found.items()}
    rows = {
        block: jax.tree.map(lambda x, i=i: x[i], tree)
        for name, tree in found.items()
        for i, block in enumerate(levels[name].blocks)
    }
    (part,) = {level.part for level in levels.values()}
    return {part: jax.tree.map(lambda *x: jnp.stack(x), *(rows[b] for b in sorted(rows)))}


class InContext(nn.Module):
    """Slow weights of the updates within a text.

    `log_rate_LEVEL`, `[blocks]`: by which factor `exp` of it the inner rate of each block is
    another than `lr`. With `rank`, `left_LEVEL_WEIGHT`, `[blocks, rows, rank]`: what the fast
    weight, `[rank, columns]`, is multiplied with. With the loss "local", `view_LEVEL`,
    `[blocks, D, D]`: see `FastWeights.views`.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self) -> None:
        config, how = self.config, self.config.cms.in_context
        levels, dim = moving(config), config.dim
        for level, matrices in moving_shapes(config).items():
            blocks = len(levels[level].blocks)
            if how.learn_lr:
                constant(self, f"log_rate_{level}", (blocks,), ("layers",), 0.0)
            for name, (rows, _) in matrices.items() if how.rank else ():
                axis = "mlp" if name == "w_out" else "embed"
                shape, axes = (blocks, rows, how.rank), ("layers", axis, None)
                weight(self, f"left_{level}_{name}", shape, axes, rows**-0.5, jnp.float32)
            if how.loss == "local":
                shape, axes = (blocks, dim, dim), ("layers", "embed", None)
                weight(self, f"view_{level}", shape, axes, dim**-0.5, jnp.float32)
