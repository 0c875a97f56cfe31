"""Which window of the token stream is row b of step s: arithmetic without state.

Row numbers count on over the whole run: row r of epoch e is window `order_e[r]`. Nothing
depends on how many hosts there are, so a run may be resumed on any number of them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import grain
import numpy as np

from hope_jax.data.records import TokenStream


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of `length + 1` tokens that follow each other without a gap; neighbours share
    one token, so that every token but the first is predicted once.

    Attributes:
      stream: the tokens.
      length: inputs per window.
      seed: order and phase of every epoch; None reads once, in order.
      documents: mark document starts inside a window, not only its own first token.
    """

    stream: TokenStream
    length: int
    seed: int | None
    documents: bool

    def __len__(self) -> int:
        """Windows per epoch. A shuffled epoch gives up at most one window, so that it can
        start anywhere in the first `length` tokens and each epoch cuts differently."""
        whole = (self.stream.tokens - 1) // self.length
        if self.seed is None:
            return whole
        return max(min(whole, 1), (self.stream.tokens - self.length) // self.length)

    def phase(self, epoch: int) -> int:
        """First token of the first window of `epoch`."""
        if self.seed is None:
            return 0
        spare = self.stream.tokens - 1 - len(self) * self.length
        return _draw(self.seed, epoch) % min(spare + 1, self.length)

    @functools.cached_property
    def order(self) -> grain.MapDataset:
        """Row number -> window number, endless if shuffled."""
        order = grain.MapDataset.range(len(self))
        if self.seed is None:
            return order
        return order.seed(_draw(self.seed, -1) % 2**32).shuffle().repeat()

    def row(self, number: int) -> dict[str, np.ndarray]:
        """`tokens` int32 `[length + 1]` and `reset` bool `[length]` of a row."""
        start = self.phase(number // len(self)) + self.order[number] * self.length
        tokens, starts = self.stream.read(start, start + self.length + 1)
        reset = starts[:-1] if self.documents else np.zeros(self.length, bool)
        reset[0] = True
        return {"tokens": tokens, "reset": reset}


def _draw(seed: int, epoch: int) -> int:
    """A number that depends on seed and epoch alone, on every machine and version."""
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
