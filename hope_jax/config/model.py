"""Configuration of the language model."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from hope_jax.config.check import choose, require
from hope_jax.config.in_context import InContextConfig
from hope_jax.config.mixers import MixerConfig, SelfModifyingConfig


@dataclasses.dataclass(frozen=True)
class CMSConfig:
    """Continuum Memory System: a chain of MLPs with different update periods (Eqs. 70-74).

    `periods` counts training steps (the multi-rate outer update of Figure 5), fastest
    first; each divides the next. One period of 1 is the feed-forward layer of an ordinary
    Transformer. `in_context` adds fast weights that are updated while a text is read.
    """

    periods: tuple[int, ...] = (1,)
    hidden: int | None = None  # hidden width of all levels together; None: 8/3 dim, rounded
    variant: Literal["sequential", "nested", "independent"] = "sequential"
    activation: Literal["swiglu", "gelu"] = "swiglu"
    in_context: InContextConfig = InContextConfig()

    def __post_init__(self):
        require(bool(self.periods), "cms.periods is empty; name at least one period")
        require(
            min(self.periods) >= 1 and len(set(self.periods)) == len(self.periods),
            f"cms.periods {self.periods}: give each level its own period of at least 1",
        )
        choose("cms.variant", self.variant, "sequential", "nested", "independent")
        choose("cms.activation", self.activation, "swiglu", "gelu")
        require(
            self.hidden is None or self.hidden >= len(self.periods),
            f"cms.hidden {self.hidden} cannot be split across {len(self.periods)} levels",
        )
        if self.in_context.on:
            chunks, stacked = self.in_context.chunks, self.in_context.stacked
            require(
                not stacked or len(self.periods) == 1,
                f"cms.in_context.stack is {self.in_context.stack!r} and cms.periods "
                f"{self.periods}: in a stack every block is one level; use one period",
            )
            require(
                stacked or len(chunks) == len(self.periods),
                f"cms.in_context.chunks {chunks} and cms.periods {self.periods}: name one "
                "chunk per level, 0 for one that does not change within a text",
            )

    def split_hidden(self, hidden: int) -> tuple[int, ...]:
        """Hidden widths of the levels, fastest first; they add up to `hidden`.

        >>> CMSConfig(periods=(1, 2, 4)).split_hidden(8)
        (3, 3, 2)
        """
        levels = len(self.periods)
        return tuple(hidden // levels + (i < hidden % levels) for i in range(levels))


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A language model: embedding, `depth` blocks of (mixer, CMS), head.

    The head is the embedding again, as in the paper's small models, or with
    `tied_head=False` a table of its own.

    `vocab_multiple` adds rows to the embedding, up to a multiple of it, for meshes that split
    the vocabulary: 128 x mesh.tensor fits the lanes of a TPU. Added ids are never predicted.

    `reconstruct` makes it a model that tells a text back from what it holds after the last
    token, for the task "compression": its scores are those of the tokens read, not of the next.
    """

    vocab_size: int = 256
    vocab_multiple: int = 1
    dim: int = 256
    depth: int = 4
    mixer: MixerConfig = SelfModifyingConfig()
    cms: CMSConfig = CMSConfig()
    tied_head: bool = True  # predict with the embedding
    norm_eps: float = 1e-6
    init_std: float = 0.02
    dtype: Literal["float32", "bfloat16"] = "float32"  # activations and matmuls
    remat: Literal["none", "block"] = "none"  # recompute blocks in the backward pass
    scan_layers: bool = True  # one compiled block for all layers
    reconstruct: bool = False  # tell the whole text from the vector at its last token

    def __post_init__(self):
        for field in ("vocab_size", "vocab_multiple", "dim", "depth"):
            value = getattr(self, field)
            require(value >= 1, f"model.{field} is {value}; use at least 1")
        for field in ("norm_eps", "init_std"):
            value = getattr(self, field)
            require(0 <= value < math.inf, f"model.{field} is {value}; use 0 or more")
        choose("model.dtype", self.dtype, "float32", "bfloat16")
        choose("model.remat", self.remat, "none", "block")
        self.mixer.validate(self.dim)
        require(
            not (self.reconstruct and self.cms.in_context.on),
            "model.reconstruct tells tokens that were read, and model.cms.in_context learns "
            "from predicting the next: turn one of them off",
        )
        if self.cms.in_context.on:
            adapting = self.cms.in_context.adapting(self.depth)
            require(
                adapting <= self.depth,
                f"cms.in_context.blocks is {adapting} and the model has {self.depth} blocks",
            )
            how = self.cms.in_context
            require(
                not how.stacked or adapting >= len(how.chunks),
                f"cms.in_context.chunks {how.chunks} is a stack of {len(how.chunks)} levels, "
                f"and {adapting} blocks adapt; set cms.in_context.blocks",
            )

    @property
    def vocab_rows(self) -> int:
        """Rows of the embedding, and scores per token: `vocab_size` and what pads it.

        >>> ModelConfig(vocab_size=50_257, vocab_multiple=128).vocab_rows
        50304
        """
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    @property
    def cms_hidden(self) -> int:
        """Hidden width of all CMS levels together."""
        if self.cms.hidden is not None:
            return self.cms.hidden
        if self.cms.activation == "gelu":
            return 4 * self.dim
        return -(-8 * self.dim // 3 // 32) * 32
