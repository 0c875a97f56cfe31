"""Streams in which facts are read in one context and asked for in a later one.

A fact is a name, an attribute and a value. Names and values are made of syllables, so that
there are many, and those that a model is tested with were never in its training; the same holds
for the sentences. Between facts there is text of the corpus.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from hope_jax.data import corpus
from hope_jax.data.documents import Document
from hope_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer

ATTRIBUTES = (
    "colour", "trade", "home", "friend", "food", "song", "ship", "animal",
    "tree", "stone", "star", "drink", "city", "wind", "flower", "weapon",
)  # fmt: skip
# A value comes after its name and attribute: predicting the next token says nothing of a name
# that comes after its value. A sentence is a lead and a core; those of the test are others, and
# so are the pairs of a subject and a verb that make its statements.
N, A, V = "{name}", "{attribute}", "{value}"
_SUBJECTS = (
    f"{N}'s {A}", f"the {A} of {N}", f"for {N} the {A}", f"as for {N}, the {A}",
    f"of {N} the {A}", f"{N}'s own {A}", f"the {A} that {N} has", f"to {N} the {A}",
    f"the {A} which {N} had",
)  # fmt: skip
_VERBS = ("is", "was", "must be", "became", "will be", "remains")
_TEST = (f"{N}'s {A} was {V}.", f"the {A} of {N} was {V}.", f"for {N} the {A} is {V}.")
_MADE = tuple(f"{subject} {verb} {V}." for verb in _VERBS for subject in _SUBJECTS)
STATEMENTS = {
    "train": (
        ("", "Know that ", "They say that ", "Everyone knows that ", "I have heard that ",
         "Look, ", "And then ", "In truth ", "Remember: ", "It was told that ", "So ",
         "Do not forget: ", "As you know, ", "Once more: ", "But "),
        tuple(core for core in _MADE if core not in _TEST) + (
            f"{N} has for {A} {V}.", f"{N}, whose {A} is {V}.", f"{N} had {A} {V}.",
            f"with {N} it is {A} {V}.", f"{N}: {A} {V}.", f"{A} of {N}: {V}.",
            f"{N} chose as {A} {V}.", f"{N}'s {A}, that was {V}.",
        ),
    ),
    "test": (("Now ", "It is said that ", "My lord, ", "Believe me, "), _TEST),
}  # fmt: skip
QUESTIONS = {
    "train": (
        ("", "Say, ", "Tell me, ", "And ", "Pray, ", "Well then: ", "Speak: ", "Come, ",
         "Once more: ", "So ", "But ", "Think: "),
        (f"what is the {A} of {N}? {V}.", f"what is {N}'s {A}? {V}.",
         f"the {A} of {N}? It is {V}.", f"{N}'s {A}? It is {V}.",
         f"of {N}, what is the {A}? {V}.", f"what {A} has {N}? {V}.",
         f"which {A} had {N}? {V}.", f"what {A} was {N}'s? It was {V}.",
         f"for {N}, which {A}? {V}.", f"and the {A} that {N} has? {V}.",
         f"{N} had which {A}? It was {V}.", f"name the {A} of {N}. {V}."),
    ),
    "test": (
        ("Now, ", "Good sir, ", "I ask: "),
        (f"what was {N}'s {A}? {V}.", f"what was the {A} of {N}? {V}.", f"and {N}'s {A}? {V}."),
    ),
}  # fmt: skip
_ONSETS, _VOWELS, _ENDS = (
    "b d f g k l m n p r s t v z".split(),
    "aeiou",
    ["", "n", "r", "s", "l"],
)
VOCABULARY = 768


def words(split: str, rng: np.random.Generator, count: int, syllables: int = 2) -> list[str]:
    """Different words that belong to one split: a tenth of all is kept for the test."""
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [rng.choice(_ONSETS) + rng.choice(list(_VOWELS)) for _ in range(syllables)]
        word = "".join(parts) + rng.choice(_ENDS)
        if (zlib.crc32(word.encode()) % 10 == 0) == (split == "test"):
            found[word] = None
    return list(found)


@dataclasses.dataclass(frozen=True)
class Fact:
    """A name's attribute has a value."""

    name: str
    attribute: str
    value: str


def facts(split: str, rng: np.random.Generator, count: int) -> list[Fact]:
    """Facts of which no two have the same name and attribute."""
    names = [n.capitalize() for n in words(split, rng, -(-count // 2))]
    pairs = [(n, a) for n in names for a in rng.choice(ATTRIBUTES, 2, replace=False)]
    rng.shuffle(pairs)
    return [
        Fact(n, str(a), v)
        for (n, a), v in zip(pairs[:count], words(split, rng, count), strict=True)
    ]


def _form(forms, rng, most: int | None = None) -> str:
    """A lead and a core, of the first `most`; a sentence begins with a capital letter."""
    leads, cores = (part[:most] for part in forms)
    text = str(rng.choice(leads)) + str(rng.choice(cores))
    return text if text.startswith("{") else text[0].upper() + text[1:]


def train_tokenizer(seed: int = 0, sentences: int = 8000) -> SentencePieceTokenizer:
    """Subwords of the corpus and of sentences with facts."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences // 4):
        for fact in facts("train", rng, 4):
            forms = (STATEMENTS, QUESTIONS)[rng.integers(2)]["train"]
            lines.append(_form(forms, rng).format(**dataclasses.asdict(fact)))
    made = Document("facts", "\n".join(lines).encode())
    return SentencePieceTokenizer.train([made, *corpus.documents("train")], VOCABULARY)


class Maker:
    """Token streams from facts."""

    def __init__(self, tokenizer, split: str, seed: int):
        self.tokenizer, self.split = tokenizer, split
        self.most: int | None = None  # leads and cores in use
        self.rng = np.random.default_rng(seed)
        part = "train" if split == "train" else "validation"
        text = b"\n".join(play.data for play in corpus.documents(part))
        self.text = np.asarray(tokenizer.encode(text), np.int32)

    def sentence(self, forms, fact: Fact) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a sentence, and which of them are the value."""
        before, after = _form(forms, self.rng, self.most).split("{value}")
        parts = [
            "\n" + before.format(name=fact.name, attribute=fact.attribute).rstrip(),
            " " + fact.value,
            after,
        ]
        ids = [np.asarray(self.tokenizer.encode(p), np.int32) for p in parts]
        marks = [np.full(len(x), i == 1) for i, x in enumerate(ids)]
        return np.concatenate(ids), np.concatenate(marks)

    def prose(self, count: int) -> np.ndarray:
        """So many tokens of the corpus."""
        start = self.rng.integers(len(self.text) - count)
        return self.text[start : start + count]

    def stream(self, length: int, count: int, asked: int):
        """One stream: facts with prose between, the context dropped, prose, questions.

        Returns:
          ids `[length + 1]`; `drop [length]`; `answer [length]`, True where the next token
          belongs to an answer; `question [length]`, the number of the question plus one.
        """
        known = facts(self.split, self.rng, count)
        told = [self.sentence(STATEMENTS[self.split], f) for f in known]
        which = self.rng.permutation(count)[:asked]
        asks = [self.sentence(QUESTIONS[self.split], known[i]) for i in which]
        room = length + 1 - sum(len(i) for i, _ in told)
        while sum(len(i) for i, _ in asks) > room and len(asks) > 1:
            asks.pop()
        spare = room - sum(len(i) for i, _ in asks)
        if spare < 0:
            raise ValueError(f"{count} facts and a question do not fit {length} tokens")
        cuts = np.sort(self.rng.integers(0, spare + 1, count + 1))
        gaps = np.diff(np.concatenate([[0], cuts, [spare]]))
        ids, number = [], []

        def put(i, n):
            ids.append(i)
            number.append(n)

        def put_unasked(i):
            put(i, np.zeros(len(i), int))

        for (i, _), gap in zip(told, gaps[:count], strict=True):
            put_unasked(self.prose(gap))
            put_unasked(i)
        put_unasked(self.prose(gaps[count]))
        drop_at = sum(len(i) for i in ids)
        put_unasked(self.prose(gaps[count + 1]))
        for n, (i, m) in enumerate(asks):
            put(i, m * (n + 1))
        ids, question = np.concatenate(ids), np.concatenate(number)[1:]
        drop = np.zeros(length, bool)
        drop[min(drop_at, length - 1)] = True
        return ids, drop, question > 0, question

    def batch(self, rows: int, length: int, count, asked: int):
        """Streams side by side."""
        made = [self.stream(length, count, min(asked, count)) for _ in range(rows)]
        ids, drop, answer, question = map(np.stack, zip(*made, strict=True))
        return {"tokens": ids, "drop": drop, "answer": answer, "question": question}
