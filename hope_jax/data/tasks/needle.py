"""Needles in a haystack, in the six forms of RULER (arXiv 2404.06654)."""

from __future__ import annotations

import math

import numpy as np

from hope_jax.config.check import require
from hope_jax.config.tasks import NeedleConfig
from hope_jax.config.tasks.needle import SYLLABLES
from hope_jax.data.prepared import PreparedSplit
from hope_jax.data.tasks.hay import Gaps, NoiseHay, TextHay, depth_of, hide
from hope_jax.data.tasks.numbered import Numbers, digits, uuid, word
from hope_jax.data.tasks.task import Example, text_example

_TRIED = 64  # examples of which the longest needles tell what room they need


class Needle:
    """Values of keys, hidden in text and asked at its end.

    The text, with question and answer, has exactly `length` tokens: the haystack is cut to
    fill what the rest leaves. Sentences, keys and values are tokenised apart and their ids
    joined, so that a value has the same ids in a needle and in the answer.

    Keys, values and haystack of held-out examples never occur in training.

    >>> from hope_jax.data.prepared import find_split
    >>> task = Needle(NeedleConfig(digits=3), 300, find_split(None, None, "train"))
    >>> example = task.example(np.random.default_rng(0))
    >>> len(example.inputs_T), f"{example.depth:.2f}"
    (300, '0.53')
    >>> print(task.tokenizer.decode(example.inputs_T[-58:]).decode())
    What is the number of zazila? The number of zazila is 481.
    """

    def __init__(self, config: NeedleConfig, length: int, text: PreparedSplit):
        self.tokenizer, self.source = text.tokenizer, text.info.sha256
        self._config, self._length = config, length
        held_out = text.split != "train"
        self._keys = Numbers(SYLLABLES**config.syllables, held_out)
        is_uuid = config.form == "single_3"
        self._kind = "code" if is_uuid else "number"
        self._values = Numbers(16**32 if is_uuid else 10**config.digits, held_out)
        single = config.form.startswith("single")
        self._needles = 1 if single else config.needles
        self._asked = 1 if config.form == "multikey" else self._needles
        self.chance = 1 / math.perm(self._values.count, self._asked)
        rng = np.random.default_rng(0)
        needed = 2 * max(_size(*self._parts(rng)[:2]) for _ in range(_TRIED))
        require(
            length >= needed,
            f"data.length is {length}, and needles, question and answer of task.form "
            f"{config.form} need up to {needed // 2} tokens, as much as the haystack has at "
            f"least; use a data.length of {needed} or more, or fewer or shorter needles",
        )
        noise = config.form == "single_1"
        self._hay = NoiseHay(text.tokenizer) if noise else TextHay(text, length)
        self._gaps = Gaps(text.tokenizer)

    def example(self, rng: np.random.Generator) -> Example:
        """Draw needles, what is asked, a haystack, and where the needles are in it."""
        needles, ending, first = self._parts(rng)
        hay_T = self._hay.draw(rng, self._length - _size(needles, ending))
        places = self._gaps.draw(rng, hay_T, len(needles))
        text_T = np.concatenate([hide(hay_T, needles, places), *ending])
        depth = depth_of(int(places[first]), hay_T)
        return text_example(text_T, len(ending[1]), depth)

    def _parts(self, rng: np.random.Generator):
        """Needles; question and answer; and which of the needles is asked first."""
        config, kind = self._config, self._kind
        one_key = config.form == "multivalue"
        keys = self._keys.draw(rng, 1 if one_key else self._needles)
        keys = [word(key, config.syllables) for key in keys]
        values = [self._name(n) for n in self._values.draw(rng, self._needles)]
        if one_key:
            asked, keys = list(range(self._needles)), keys * self._needles
            question = f"What are the {self._needles} {kind}s of {keys[0]}, in order? They are"
        else:
            asked = rng.permutation(self._needles)[: self._asked].tolist()
            names = " and ".join(keys[i] for i in asked)
            question = f"What is the {kind} of {names}? The {kind} of {names} is"
            if len(asked) > 1:
                question = f"What are the {kind}s of {names}? They are"
        article = "One" if one_key else "The"
        needles = [
            self._ids(f"\n{article} {kind} of {key} is", f" {value}", ".", "\n")
            for key, value in zip(keys, values, strict=True)
        ]
        answer = [part for i in asked for part in (",", f" {values[i]}")][1:]
        ending = self._ids(f"\n{question}"), self._ids(*answer, ".")
        return needles, ending, asked[0]

    def _name(self, value: int) -> str:
        return uuid(value) if self._kind == "code" else digits(value, self._config.digits)

    def _ids(self, *parts: str) -> np.ndarray:
        return np.concatenate([self.tokenizer.encode(part) for part in parts])


def _size(needles, ending) -> int:
    return sum(map(len, needles)) + sum(map(len, ending))
