"""A bounded sample of what a stream read, for sleep."""

from __future__ import annotations

import numpy as np

from hope_jax.config.check import require


class Reservoir:
    """Windows of tokens; each window that was read is in it with the same probability.

    Args:
      tokens: how many are kept at most; 0: none.
      window: tokens of a window, read from a fresh context in sleep.
      seed: of the choice.

    >>> reservoir = Reservoir(tokens=4, window=2)
    >>> reservoir.add(np.arange(5))
    >>> [list(map(int, window)) for window in reservoir.windows()]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, tokens: int = 16_384, window: int = 256, seed: int = 0):
        require(tokens >= 0, f"the reservoir is of {tokens} tokens; use 0 or more")
        require(window >= 2, f"a window is of {window} tokens; use 2 or more")
        require(
            tokens == 0 or tokens >= window,
            f"a reservoir of {tokens} tokens holds no window of {window}",
        )
        self.tokens, self.window, self._seed = tokens, window, seed
        self._kept: list[np.ndarray] = []
        self._open = np.zeros(0, np.int32)  # the window that is being read
        self._seen = 0  # whole windows so far

    def add(self, ids_T: np.ndarray) -> None:
        """Take in what was read."""
        if not self.tokens:
            return
        self._open = np.concatenate([self._open, np.asarray(ids_T, np.int32)])
        while len(self._open) >= self.window:
            self._take(self._open[: self.window])
            self._open = self._open[self.window :]

    def cut(self) -> None:
        """A context ends here: the next window begins with the next token."""
        if len(self._open) > 1:
            self._take(self._open)
        self._open = np.zeros(0, np.int32)

    def windows(self) -> list[np.ndarray]:
        """What is kept, the window that is being read included."""
        return [*self._kept, self._open] if self._open.size else list(self._kept)

    def empty(self) -> None:
        """Keep nothing of what was read so far."""
        self._kept, self._seen, self._open = [], 0, np.zeros(0, np.int32)

    def __len__(self) -> int:
        return sum(map(len, self.windows()))

    def _take(self, window_T: np.ndarray) -> None:
        self._seen += 1
        if len(self._kept) < self.tokens // self.window:
            self._kept.append(window_T)
            return
        # by number, so that a reservoir that was saved goes on as it would have
        place = int(np.random.default_rng((self._seed, self._seen)).integers(self._seen))
        if place < len(self._kept):
            self._kept[place] = window_T

    def arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` makes it from."""
        kept = np.concatenate([*self._kept, np.zeros(0, np.int32)])
        return {
            "kept": kept.astype(np.int32),
            "lengths": np.asarray([len(w) for w in self._kept], np.int32),
            "open": self._open,
            "numbers": np.asarray([self.tokens, self.window, self._seen, self._seed], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Reservoir:
        """Inverse of `arrays`."""
        tokens, window, seen, seed = map(int, arrays["numbers"])
        reservoir = cls(tokens, window, seed)
        reservoir._seen, reservoir._open = seen, arrays["open"]
        ends = np.cumsum(arrays["lengths"])
        reservoir._kept = np.split(arrays["kept"], ends[:-1]) if len(ends) else []
        return reservoir
