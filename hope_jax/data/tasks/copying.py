"""Selective copying, compression and induction."""

from __future__ import annotations

import numpy as np

from hope_jax.config.check import require
from hope_jax.config.tasks import CompressionConfig, CopyingConfig, InductionConfig
from hope_jax.data.tasks.task import Example, blank_example, names

BLANK, MARK = 0, 1


class Copying:
    """Symbols among blanks, and as many marks at the end, one for each in order.

    >>> task = Copying(CopyingConfig(symbols=4, copied=2), length=8)
    >>> example = task.example(np.random.default_rng(0))
    >>> " ".join(task.symbols[i] for i in example.inputs_T)
    '. s3 s2 . . . ? ?'
    >>> [task.symbols[i] for i in example.targets_T[example.asked_T]]
    ['s3', 's2']
    """

    def __init__(self, config: CopyingConfig, length: int):
        require(
            length >= 2 * config.copied,
            f"data.length is {length}, {config.copied} symbols and as many marks need "
            f"{2 * config.copied}; use a longer data.length or fewer task.copied",
        )
        self._config, self._length = config, length
        self.symbols = (".", "?", *names("s", config.symbols))
        self.chance = 1 / config.symbols

    def example(self, rng: np.random.Generator) -> Example:
        """Random symbols at random places."""
        copied = self._config.copied
        text = self._length - copied
        values = 2 + rng.integers(self._config.symbols, size=copied)
        places = np.sort(rng.choice(text, copied, replace=False))
        example = blank_example(self._length, BLANK)
        example.inputs_T[places] = values
        example.inputs_T[text:] = MARK
        example.targets_T[text:] = values
        example.asked_T[text:] = True
        return example


class Compression:
    """Random symbols and a mark, from whose vector all of them are to be told.

    >>> task = Compression(CompressionConfig(symbols=4), length=4)
    >>> example = task.example(np.random.default_rng(0))
    >>> [task.symbols[i] for i in example.inputs_T], example.asked_T.tolist()
    (['s3', 's2', 's2', '?'], [True, True, True, False])
    >>> (example.targets_T[:3] == example.inputs_T[:3]).all()
    np.True_
    """

    def __init__(self, config: CompressionConfig, length: int):
        require(
            length >= 2,
            f"data.length is {length}; use at least 2, a symbol and the mark",
        )
        self._config, self._length = config, length
        self.symbols = ("?", *names("s", config.symbols))
        self.chance = 1 / config.symbols

    def example(self, rng: np.random.Generator) -> Example:
        """Random symbols."""
        example = blank_example(self._length)
        values = 1 + rng.integers(self._config.symbols, size=self._length - 1)
        example.inputs_T[:-1] = example.targets_T[:-1] = values
        example.asked_T[:-1] = True
        return example


class Induction:
    """Random symbols, a mark among them and one at the end, after which the same follows.

    >>> task = Induction(InductionConfig(symbols=4), length=6)
    >>> example = task.example(np.random.default_rng(1))
    >>> " ".join(task.symbols[i] for i in example.inputs_T), task.symbols[example.last]
    ('s1 s2 s3 ! s0 !', 's0')
    """

    def __init__(self, config: InductionConfig, length: int):
        require(
            length >= 3,
            f"data.length is {length}; use at least 3, two marks and what follows",
        )
        self._config, self._length = config, length
        self.symbols = ("!", *names("s", config.symbols))
        self.chance = 1 / config.symbols

    def example(self, rng: np.random.Generator) -> Example:
        """The first mark is anywhere but last."""
        length = self._length
        inputs_T = (1 + rng.integers(self._config.symbols, size=length)).astype(np.int32)
        mark = int(rng.integers(length - 2))
        inputs_T[[mark, length - 1]] = 0
        last = int(inputs_T[mark + 1])
        asked_T = np.zeros(length, bool)
        asked_T[-1] = True
        return Example(inputs_T, np.append(inputs_T[1:], np.int32(last)), asked_T, last)
