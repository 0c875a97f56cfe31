"""State tracking: the product of the permutations read so far."""

from __future__ import annotations

import itertools

import numpy as np

from hope_jax.config.tasks import GroupConfig
from hope_jax.data.tasks.task import Example


class Group:
    """Words of a permutation group; after each letter the product of all so far is asked.

    A symbol is named by what it maps 1, 2, ... to; the permutation that is read is applied
    after those before it.

    >>> task = Group(GroupConfig(group="S3"), length=3)
    >>> example = task.example(np.random.default_rng(0))
    >>> [task.symbols[i] for i in example.inputs_T]
    ['321', '231', '231']
    >>> [task.symbols[i] for i in example.targets_T]
    ['321', '132', '213']
    """

    def __init__(self, config: GroupConfig, length: int):
        degree = int(config.group[1:])
        found = [*itertools.permutations(range(degree))]
        if config.group[0] == "A":
            found = [p for p in found if is_even(p)]
        number = {p: i for i, p in enumerate(found)}
        # [before, read] -> after: 120 x 120 for S5
        self._product = np.array(
            [[number[tuple(b[x] for x in a)] for b in found] for a in found], np.int32
        )
        moved = [sum(x != i for i, x in enumerate(p)) for p in found]
        read = [i for i, m in enumerate(moved) if not config.swaps or m == 2]
        self._read = np.array(read, np.int32)
        self._identity = number[tuple(range(degree))]
        self._length = length
        self.symbols = tuple("".join(str(x + 1) for x in p) for p in found)
        # of swaps alone the sign of the product is known from the length
        self.chance = None if config.swaps else 1 / len(found)

    def example(self, rng: np.random.Generator) -> Example:
        """A random word."""
        inputs_T = rng.choice(self._read, self._length).astype(np.int32)
        targets_T = np.empty(self._length, np.int32)
        state = self._identity
        for t, letter in enumerate(inputs_T):
            state = targets_T[t] = self._product[state, letter]
        return Example(inputs_T, targets_T, np.ones(self._length, bool))


def is_even(permutation: tuple[int, ...]) -> bool:
    """Whether an even number of swaps makes it.

    >>> is_even((1, 2, 0)), is_even((1, 0, 2))
    (True, False)
    """
    pairs = itertools.combinations(permutation, 2)
    return sum(a > b for a, b in pairs) % 2 == 0
