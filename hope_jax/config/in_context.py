"""Configuration of a CMS that is updated within a text."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from hope_jax.config.check import choose, require


@dataclasses.dataclass(frozen=True)
class InContextConfig:
    """Updates of the CMS while a text is read (Eq. 71, within the sequence).

    The levels of the last blocks have fast weights: what is added to their slow weights for
    one text alone. Every `chunks[i]` tokens those of level i take a step of an optimizer of
    their own on the gradient of the loss of these tokens. The slow weights are what every text
    begins from, and are trained through the updates.

    Attributes:
      chunks: tokens per update of each level of `cms.periods`, fastest first; each divides the
        next. 0: this level does not change within a text. Empty: none does.
      blocks: how many of the last blocks adapt; None: a quarter of them, at least one.
      loss: "next_token" is the model's own, through all that lies above the level. "local" is
        the level's own: to predict, from what it is given at a token, a learned linear view of
        what it is given at the next.
      rule: "sgd", "momentum" (0.9) or "adam", with a state per text.
      lr: inner learning rate at the start, one for all levels or one for each that has a chunk;
        0 for all levels is the frozen model exactly.
      learn_lr: whether each level and block learns a factor of its rate.
      clip: norm to which the gradient of a level is clipped before each step, per text.
      outer: "through" differentiates the outer loss through the inner gradients; "first_order"
        takes them as constants, which costs a third less.
      stack: whose levels they are. "none": every block has all levels of `cms.periods`.
        Otherwise every block's MLP is one level, as it is when the MLPs of a pretrained model
        become a CMS (ad-hoc level stacking, section 7.3), and `chunks` are those of as many
        levels: "interleaved" deals the blocks that adapt to the levels in turns, from the last
        block and the fastest level on, and "contiguous" makes the last blocks the fastest.
      rank: None: fast weights are whole matrices. A number: they are the product of a learned
        matrix of so many columns and a fast one of so many rows, and a stream is small.
    """

    chunks: tuple[int, ...] = ()
    blocks: int | None = None
    loss: Literal["next_token", "local"] = "next_token"
    rule: Literal["sgd", "momentum", "adam"] = "sgd"
    lr: float | tuple[float, ...] = 0.1
    learn_lr: bool = True
    clip: float = 1.0
    outer: Literal["through", "first_order"] = "through"
    stack: Literal["none", "interleaved", "contiguous"] = "none"
    rank: int | None = None

    def __post_init__(self):
        where = "cms.in_context"
        require(
            all(chunk >= 0 for chunk in self.chunks),
            f"{where}.chunks {self.chunks}: use 0 or more tokens",
        )
        moving = [chunk for chunk in self.chunks if chunk]
        require(
            bool(moving) or not self.chunks,
            f"{where}.chunks {self.chunks}: no level changes; use () for a CMS that does not",
        )
        for fast, slow in zip(moving, moving[1:], strict=False):
            require(
                slow >= fast and slow % fast == 0,
                f"{where}.chunks {self.chunks}: {fast} does not divide {slow}; levels run from "
                "fast to slow, and each chunk is made of whole faster ones",
            )
        choose(f"{where}.loss", self.loss, "next_token", "local")
        choose(f"{where}.rule", self.rule, "sgd", "momentum", "adam")
        choose(f"{where}.outer", self.outer, "through", "first_order")
        choose(f"{where}.stack", self.stack, "none", "interleaved", "contiguous")
        require(
            all(0 <= rate < math.inf for rate in self.rates),
            f"{where}.lr is {self.lr}; use 0 or more",
        )
        require(
            not isinstance(self.lr, tuple) or len(self.lr) == len(moving),
            f"{where}.lr {self.lr} and {where}.chunks {self.chunks}: name one rate, or one for "
            "each level that changes",
        )
        require(
            not self.stacked or (len(set(moving)) == len(self.chunks)),
            f"{where}.chunks {self.chunks}: the levels of a stack all change, and no two "
            "at the same chunks; for blocks that do not change see blocks",
        )
        require(self.clip > 0, f"{where}.clip is {self.clip}; use more than 0")
        for field in ("blocks", "rank"):
            value = getattr(self, field)
            require(
                value is None or value >= 1,
                f"{where}.{field} is {value}; use None or 1 or more",
            )

    @property
    def rates(self) -> tuple[float, ...]:
        """Inner learning rates of the levels that change, fastest first."""
        if isinstance(self.lr, tuple):
            return self.lr
        return (self.lr,) * max(1, sum(chunk > 0 for chunk in self.chunks))

    @property
    def stacked(self) -> bool:
        """Whether every block is one level."""
        return self.stack != "none"

    @property
    def on(self) -> bool:
        """Whether anything changes within a text."""
        return bool(self.chunks)

    @property
    def chunk(self) -> int:
        """Tokens per update of the fastest level: a tick."""
        return min(chunk for chunk in self.chunks if chunk)

    def adapting(self, depth: int) -> int:
        """How many of `depth` blocks adapt."""
        return max(1, depth // 4) if self.blocks is None else self.blocks

    def blocks_of(self, level: int, depth: int) -> tuple[int, ...]:
        """Which of the blocks that adapt, counted from the first of them, have a level.

        Args:
          level: its place in `chunks`.
          depth: blocks of the model.

        >>> how = InContextConfig(chunks=(64, 512), blocks=5, stack="interleaved")
        >>> how.blocks_of(0, depth=8), how.blocks_of(1, depth=8)
        ((0, 2, 4), (1, 3))
        >>> how = InContextConfig(chunks=(64, 512), blocks=5, stack="contiguous")
        >>> how.blocks_of(0, depth=8), how.blocks_of(1, depth=8)
        ((2, 3, 4), (0, 1))
        """
        count, levels = self.adapting(depth), len(self.chunks)
        if not self.stacked:
            return tuple(range(count))
        from_last = range(count)
        if self.stack == "interleaved":
            chosen = [n for n in from_last if n % levels == level]
        else:
            chosen = [n for n in from_last if n * levels // count == level]
        return tuple(sorted(count - 1 - n for n in chosen))
