"""Which symbols may come next in a string of a formal language."""

from __future__ import annotations

import numpy as np

from hope_jax.config.check import require
from hope_jax.config.tasks import FormalConfig
from hope_jax.data.tasks.languages import END, LANGUAGES
from hope_jax.data.tasks.task import Example, blank_example


class Formal:
    """Strings of a language, one a text, with the set of what may follow after each symbol.

    >>> task = Formal(FormalConfig(language="anbn", shortest=4, longest=4), length=6)
    >>> example = task.example(np.random.default_rng(0))
    >>> [task.symbols[i] for i in example.inputs_T]
    ['a', 'a', 'b', 'b', 'end', 'end']
    >>> [f"{legal:03b}" for legal in example.targets_T[example.asked_T]]  # b, a, end
    ['110', '110', '100', '001']
    """

    chance = None

    def __init__(self, config: FormalConfig, length: int):
        require(
            length >= config.longest,
            f"data.length is {length} and task.longest {config.longest}; use a longer "
            "data.length or a smaller task.longest",
        )
        self._language, self._length = LANGUAGES[config.language], length
        self.symbols = self._language.symbols
        self._lengths = self._language.lengths(config.shortest, config.longest)
        require(
            len(self._lengths) > 0,
            f"language {config.language} has no string of {config.shortest} to "
            f"{config.longest} symbols; widen task.shortest to task.longest",
        )

    def example(self, rng: np.random.Generator) -> Example:
        """A string of random length; its end fills the rest of the text."""
        string = self._language.string(int(rng.choice(self._lengths)), rng)
        example = blank_example(self._length, END)
        size = len(string)
        example.inputs_T[:size] = string
        example.targets_T[:size] = self._language.legal(string)
        example.asked_T[:size] = True
        return example
