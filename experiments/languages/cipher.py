"""A language made of another: an invented word for each, in the same order.

Nothing that was ever published is written in it, so that no pretrained model knows a word.
"""

from __future__ import annotations

import re

import numpy as np

_ONSETS = "b br d dr f g gl h k l m n p r s t v z".split()
_VOWELS = "a e i o u ai oa".split()
_CODAS = ["", "", "", *"nlrsk"]
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


class Cipher:
    """Words for words, by the seed. Of two that would get the same, the later gets another.

    Example::

        cipher = Cipher(0)
        cipher.sentence("The dog sleeps.")
    """

    def __init__(self, seed: int):
        self.seed = seed
        self._words: dict[str, str] = {}
        self._taken: set[str] = set()

    def word(self, word: str) -> str:
        """The word for a word, in small letters. No two words have the same."""
        word = word.lower()
        if word not in self._words:
            random = np.random.default_rng([self.seed, *word.encode()])
            made = self._invent(random, len(word))
            while made in self._taken:
                made = self._invent(random, len(word) + 3)
            self._words[word] = made
            self._taken.add(made)
        return self._words[word]

    def sentence(self, text: str) -> str:
        """A sentence with every word replaced; signs, order and a first capital stay."""

        def replace(match: re.Match) -> str:
            made = self.word(match[0])
            return made.capitalize() if match[0][0].isupper() else made

        return WORD.sub(replace, text)

    @staticmethod
    def _invent(random: np.random.Generator, length: int) -> str:
        """A word of about as many letters: the more common a word, the shorter it stays."""
        made = ""
        while not made or len(made) + 2 <= length:
            made += random.choice(_ONSETS) + random.choice(_VOWELS)
            made += random.choice(_CODAS)
        return made
