"""Memorization: a table that is in no text."""

from __future__ import annotations

import numpy as np

from hope_jax.config.check import require
from hope_jax.config.tasks import MemorizationConfig
from hope_jax.data.tasks.task import Example, blank_example, names

MARK = 0
_TABLE = 0  # seed of the table: one for all runs, in training and when held out


class Memorization:
    """Keys, each with a mark after it at which its value is asked (arXiv 2403.17844).

    >>> task = Memorization(MemorizationConfig(keys=3, values=4), length=6)
    >>> example = task.example(np.random.default_rng(0))
    >>> " ".join(task.symbols[i] for i in example.inputs_T)
    'k2 ? k1 ? k1 ?'
    >>> values = example.targets_T[example.asked_T]
    >>> len(values), values[1] == values[2]
    (3, np.True_)
    """

    chance = None  # keys with one value are few: the commonest value is no uniform guess

    def __init__(self, config: MemorizationConfig, length: int):
        require(length >= 2, f"data.length is {length}; use at least 2, a key and its mark")
        self._config, self._length = config, length
        self.symbols = ("?", *names("k", config.keys), *names("v", config.values))
        first = 1 + config.keys
        self._values = first + np.random.default_rng(_TABLE).integers(
            config.values, size=config.keys
        )

    def example(self, rng: np.random.Generator) -> Example:
        """Random keys."""
        pairs = self._length // 2
        keys = rng.integers(self._config.keys, size=pairs)
        example = blank_example(self._length, MARK)
        example.inputs_T[0 : 2 * pairs : 2] = 1 + keys
        asked = slice(1, 2 * pairs, 2)
        example.targets_T[asked] = self._values[keys]
        example.asked_T[asked] = True
        return example
