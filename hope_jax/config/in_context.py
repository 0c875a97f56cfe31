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
      lr: inner learning rate at the start; 0 for all levels is the frozen model exactly.
      learn_lr: whether each level and block learns a factor of its rate.
      clip: norm to which the gradient of a level is clipped before each step, per text.
      outer: "through" differentiates the outer loss through the inner gradients; "first_order"
        takes them as constants, which costs a third less.
      rank: None: fast weights are whole matrices. A number: they are the product of a learned
        matrix of so many columns and a fast one of so many rows, and a stream is small.
    """

    chunks: tuple[int, ...] = ()
    blocks: int | None = None
    loss: Literal["next_token", "local"] = "next_token"
    rule: Literal["sgd", "momentum", "adam"] = "sgd"
    lr: float = 0.1
    learn_lr: bool = True
    clip: float = 1.0
    outer: Literal["through", "first_order"] = "through"
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
        require(0 <= self.lr < math.inf, f"{where}.lr is {self.lr}; use 0 or more")
        require(self.clip > 0, f"{where}.clip is {self.clip}; use more than 0")
        for field in ("blocks", "rank"):
            value = getattr(self, field)
            require(
                value is None or value >= 1,
                f"{where}.{field} is {value}; use None or 1 or more",
            )

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
