"""A bounded sample of what a stream read, for sleep."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hope_jax.config.check import require


class _Kept(NamedTuple):
    """A window, how many windows had been read with it, and its random rank."""

    number: int
    rank: float
    window_T: np.ndarray


class Reservoir:
    """Windows of tokens; each window that was read is in it with the same probability.

    A window is shorter where a context ended. Each is given a random rank, and where there is
    not enough room the lowest ranks go.

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
        self._kept: list[_Kept] = []  # as they were read
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
        kept = [kept.window_T for kept in self._kept]
        return [*kept, self._open] if self._open.size else kept

    def empty(self) -> None:
        """Keep nothing of what was read so far."""
        self._kept, self._seen, self._open = [], 0, np.zeros(0, np.int32)

    def __len__(self) -> int:
        return sum(map(len, self.windows()))

    def _take(self, window_T: np.ndarray) -> None:
        self._seen += 1
        self._kept.append(self._ranked(self._seen, window_T))
        while sum(len(kept.window_T) for kept in self._kept) > self.tokens:
            lowest = min(range(len(self._kept)), key=lambda i: self._kept[i].rank)
            del self._kept[lowest]

    def _ranked(self, number: int, window_T: np.ndarray) -> _Kept:
        """Ranks follow from numbers, so that a reservoir that was saved goes on as it would."""
        return _Kept(number, np.random.default_rng((self._seed, number)).random(), window_T)

    def arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` makes it from."""
        windows = [kept.window_T for kept in self._kept]
        return {
            "kept": np.concatenate([*windows, np.zeros(0, np.int32)]).astype(np.int32),
            "lengths": np.asarray([len(w) for w in windows], np.int32),
            "which": np.asarray([kept.number for kept in self._kept], np.int64),
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
        windows = np.split(arrays["kept"], ends[:-1]) if len(ends) else []
        numbers = map(int, arrays["which"])
        reservoir._kept = list(map(reservoir._ranked, numbers, windows))
        return reservoir
