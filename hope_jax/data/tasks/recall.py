"""In-context recall: plain, noisy and fuzzy."""

from __future__ import annotations

import numpy as np

from hope_jax.config.check import require
from hope_jax.config.tasks import RecallConfig
from hope_jax.data.tasks.task import Example, names


class Recall:
    """Keys with values from a table that is drawn anew for every text (arXiv 2403.17844).

    Every value of a key that came before is asked, symbol by symbol.

    >>> task = Recall(RecallConfig(keys=2, values=2), length=8)
    >>> example = task.example(np.random.default_rng(1))
    >>> " ".join(task.symbols[i] for i in example.inputs_T)
    'k1 v1 k1 v1 k0 v0 k0 v0'
    >>> np.flatnonzero(example.asked_T).tolist()  # after each second one
    [2, 6]
    """

    def __init__(self, config: RecallConfig, length: int):
        # pairs that certainly repeat a key: with whole motifs of noise between, at worst
        needed = (config.keys + 1) * 2 * config.motif
        needed = int(needed / (1 - config.noise)) + 1
        require(
            length >= needed,
            f"data.length is {length}, too few for a key to come again; use at least {needed}, "
            "or fewer task.keys",
        )
        self._config, self._length = config, length
        self.symbols = (
            *names("k", config.keys),
            *names("v", config.values),
            *(names("n", config.noise_symbols) if config.noise else ()),
        )
        self.chance = 1 / config.values if config.motif == 1 else None

    def example(self, rng: np.random.Generator) -> Example:
        """Draw a table and read it until the text is full, once more if nothing came twice."""
        while True:
            example = self._draw(rng)
            if example.asked_T.any():
                return example

    def _draw(self, rng: np.random.Generator) -> Example:
        config, size = self._config, self._length + 1
        table = self._table(rng)
        text: list[int] = []
        asked: list[bool] = []
        seen: set[int] = set()
        noise = config.keys + config.values
        pair = config.motif + 1  # tokens, on average
        often = pair * config.noise / (1 - config.noise + pair * config.noise)
        while len(text) < size:
            if config.noise and rng.random() < often:
                text.append(noise + int(rng.integers(config.noise_symbols)))
                asked.append(False)
                continue
            which = int(rng.integers(len(table)))
            key, value = table[which]
            text += [*key, *value]
            asked += [False] * len(key) + [which in seen] * len(value)
            seen.add(which)
        tokens = np.array(text[:size], np.int32)
        return Example(
            inputs_T=tokens[:-1],
            targets_T=tokens[1:],
            asked_T=np.array(asked[1:size], bool),
            last=int(tokens[-1]),
        )

    def _table(self, rng: np.random.Generator) -> list[tuple[list[int], list[int]]]:
        """As many keys as there are symbols for them, all different, each with a value."""
        config = self._config
        if config.motif == 1:
            values = config.keys + rng.integers(config.values, size=config.keys)
            return [([k], [int(v)]) for k, v in enumerate(values)]
        keys: dict[tuple[int, ...], list[int]] = {}
        while len(keys) < config.keys:
            key = self._motif(config.keys, rng)
            value = self._motif(config.values, rng)
            keys.setdefault(key, [config.keys + v for v in value])
        return [(list(key), value) for key, value in keys.items()]

    def _motif(self, symbols: int, rng: np.random.Generator) -> tuple[int, ...]:
        size = int(rng.integers(1, self._config.motif + 1))
        return tuple(int(x) for x in rng.choice(symbols, size, replace=False))
