"""Multi-query associative recall."""

from __future__ import annotations

import numpy as np

from hope_jax.config.check import require
from hope_jax.config.tasks import MQARConfig
from hope_jax.data.tasks.task import Example, blank_example, names

BLANK = 0


class MQAR:
    """Keys with values, and every key once more (arXiv 2312.04927).

    Between the questions there are blanks; the value is not in the text after a question.

    >>> task = MQAR(MQARConfig(pairs=2, keys=4, values=4), length=8)
    >>> example = task.example(np.random.default_rng(0))
    >>> " ".join(task.symbols[i] for i in example.inputs_T)
    'k2 v1 k3 v1 k2 . k3 .'
    >>> [task.symbols[i] for i in example.targets_T[example.asked_T]]
    ['v1', 'v1']
    """

    def __init__(self, config: MQARConfig, length: int):
        needed = 4 * config.pairs
        require(
            length >= needed,
            f"data.length is {length}, {config.pairs} pairs and as many questions need "
            f"{needed}; use a longer data.length or fewer task.pairs",
        )
        self._config, self._length = config, length
        self.symbols = (".", *names("k", config.keys), *names("v", config.values))
        self.chance = 1 / config.values
        places = (length - 2 * config.pairs) // 2
        weight = np.arange(1, places + 1) ** (config.power - 1)
        self._weight = weight / weight.sum()

    def example(self, rng: np.random.Generator) -> Example:
        """Draw keys, values and where the keys come again."""
        config = self._config
        pairs, first_value = config.pairs, 1 + config.keys
        keys = 1 + rng.choice(config.keys, pairs, replace=False)
        values = first_value + rng.integers(config.values, size=pairs)
        places = rng.choice(len(self._weight), pairs, replace=False, p=self._weight)
        example = blank_example(self._length, BLANK)
        example.inputs_T[0 : 2 * pairs : 2] = keys
        example.inputs_T[1 : 2 * pairs : 2] = values
        asked = 2 * pairs + 2 * places
        example.inputs_T[asked] = keys
        example.targets_T[asked] = values
        example.asked_T[asked] = True
        return example
