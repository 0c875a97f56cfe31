"""Two languages to learn by reading: Kalamang, and one that nobody ever spoke.

Kalamang (Visser 2020, Dictionaria, CC BY 4.0): `entries.csv`, `senses.csv` and `examples.csv`
of the folder `cldf` of https://github.com/dictionaria/kalamang. A Papuan language of about 130
speakers, so that a pretrained model has hardly seen any of it.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import published
from languages.cipher import WORD, Cipher

FILES = ("entries.csv", "senses.csv", "examples.csv")
PUBLISHED = "https://github.com/dictionaria/kalamang/tree/master/cldf"
LONGEST = 12  # words of a sentence
SHOWN = 4  # sentences that show how it is asked

# A few rows have the translations in the wrong columns: words that no English sentence has.
_MALAY = frozenset("dia yang tidak kasih dengan sama dan itu kita dong mereka".split())


@dataclasses.dataclass(frozen=True)
class Pair:
    """A word or a sentence, and what it means."""

    foreign: str
    english: str


@dataclasses.dataclass(frozen=True)
class Language:
    """What is read of a language, what it is asked, and sentences that show how it is asked."""

    name: str
    entries: list[Pair]
    sentences: list[Pair]
    shown: list[Pair]
    asked: list[Pair]

    def pages(self, words: int) -> list[str]:
        """Entries, then sentences, in pieces of about as many words."""
        pages, page, size = [], "", 0
        for pair in [*self.entries, *self.sentences]:
            page += self.line(pair)
            size += len(pair.foreign.split()) + len(pair.english.split()) + 2
            if size >= words:
                pages, page, size = [*pages, page], "", 0
        return [*pages, page] if page else pages

    def line(self, pair: Pair) -> str:
        """A pair as it is read."""
        return f"{self.question(pair)} {pair.english}\n\n"

    def question(self, pair: Pair) -> str:
        """A pair without its English."""
        return f"{self.name}: {pair.foreign}\nEnglish:"

    def lesson(self) -> str:
        """The sentences that show how it is asked."""
        return "".join(map(self.line, self.shown))


@dataclasses.dataclass(frozen=True)
class Source:
    """All sentences and words of Kalamang with their English."""

    sentences: list[Pair]
    entries: list[Pair]


def read(folder: Path) -> Source:
    """Read Kalamang; sentences that are long, doubtful, or there twice are left out.

    Raises:
      FileNotFoundError: a file is missing; says which, and where it is published.
    """
    published.require("Kalamang", folder, FILES, PUBLISHED)
    rows = {name: _rows(folder / name) for name in FILES}
    sentences = [
        Pair(row["Primary_Text"].strip(), row["Translated_Text"].strip())
        for row in rows["examples.csv"]
    ]
    senses: dict[str, str] = {}
    for row in rows["senses.csv"]:
        senses.setdefault(row["Entry_ID"], row["Description"].strip())
    entries = [
        Pair(row["Headword"].strip(), senses[row["ID"]])
        for row in rows["entries.csv"]
        if row["ID"] in senses
    ]
    return Source(_once(filter(_clear, sentences)), _once(filter(_short, entries)))


def kalamang(source: Source, seed: int, entries: int, sentences: int, asked: int) -> Language:
    """Kalamang: sentences drawn by the seed, entries of the words that they use most."""
    pairs = _shuffled(source.sentences, seed)[: _half(source)]
    by_word = {entry.foreign.lower(): entry for entry in source.entries}
    return _language("Kalamang", pairs, by_word.get, entries, sentences, asked)


def ciphered(source: Source, seed: int, entries: int, sentences: int, asked: int) -> Language:
    """A language whose words stand for English ones, made of the other half of the sentences.

    Which words they are depends on the seed too.
    """
    cipher = Cipher(seed)
    pairs = [
        Pair(cipher.sentence(pair.english), pair.english)
        for pair in _shuffled(source.sentences, seed)[_half(source) :]
    ]
    meanings = {cipher.word(word): word for pair in pairs for word in _words(pair.english)}

    def look_up(word: str) -> Pair | None:
        return Pair(word, meanings[word]) if word in meanings else None

    return _language("Velish", pairs, look_up, entries, sentences, asked)


def _language(
    name: str,
    pairs: Sequence[Pair],
    look_up: Callable[[str], Pair | None],
    entries: int,
    sentences: int,
    asked: int,
) -> Language:
    needed = SHOWN + asked + sentences
    if needed > len(pairs):
        raise ValueError(
            f"{sentences} sentences to read and {asked} to ask take {needed} with the {SHOWN} "
            f"that show how; there are {len(pairs)} of {name}: ask for fewer"
        )
    used = pairs[:needed]
    counts = collections.Counter(w for pair in used for w in _words(pair.foreign))
    known = [entry for word, _ in counts.most_common() if (entry := look_up(word)) is not None]
    return Language(
        name,
        entries=_once(known)[:entries],
        shown=list(used[:SHOWN]),
        asked=list(used[SHOWN : SHOWN + asked]),
        sentences=list(used[SHOWN + asked :]),
    )


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _half(source: Source) -> int:
    return len(source.sentences) // 2


def _shuffled(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[i] for i in order]


def _clear(pair: Pair) -> bool:
    words = set(_words(pair.english))
    short = len(pair.foreign.split()) <= LONGEST and len(pair.english.split()) <= 2 * LONGEST
    return bool(words) and bool(pair.foreign) and short and not words & _MALAY


def _short(entry: Pair) -> bool:
    return bool(entry.english) and len(entry.english.split()) <= LONGEST


def _once(pairs) -> list[Pair]:
    """Without pairs of which one side was there before."""
    foreign, english, kept = set(), set(), []
    for pair in pairs:
        sides = pair.foreign.lower(), pair.english.lower()
        if sides[0] not in foreign and sides[1] not in english:
            kept.append(pair)
        foreign.add(sides[0])
        english.add(sides[1])
    return kept


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
