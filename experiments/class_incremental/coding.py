"""Examples as tokens: an utterance, an arrow, and one token that stands for the class.

    what is my bank balance => storm

The token of a class is a word of the base model's vocabulary that says nothing about it: one
that training utterances use least, and of those the first in the vocabulary, which are the
commonest. The least used tokens of the base itself would not do: their embeddings hardly moved
in training and then lie close together, and a model that does not learn embeddings could not
tell such classes apart. For the same reason a piece that others begin with is left out (" bec"
is hardly ever seen where " became" is a piece). The mapping is the same for every seed and arm.
A query costs one reading of its utterance; the answer is the likeliest of the tokens that stand
for classes seen so far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from class_incremental.classes import Example, Pool

ARROW = " =>"
STEP = 8  # widths of batches are multiples of it: few shapes, little padding


@dataclasses.dataclass(frozen=True)
class Batch:
    """Prompts side by side.

    Attributes:
      ids_NT: int32; a newline, the utterance, the arrow, and newlines after it.
      last_N: where the arrow ends: the token after it is the answer.
      label_N: that token.
    """

    ids_NT: np.ndarray
    last_N: np.ndarray
    label_N: np.ndarray


def label_ids(tokenizer, pool: Pool) -> dict[str, int]:
    """The token of every class.

    Raises:
      ValueError: the vocabulary has too few words.
    """
    used = np.zeros(tokenizer.vocab_size, int)
    for texts in pool.train.values():
        for text in texts:
            np.add.at(used, tokenizer.encode(text), 1)
    pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    beginnings = {piece[:end] for piece in pieces for end in range(1, len(piece))}
    words = [i for i, piece in enumerate(pieces) if _is_word(piece) and piece not in beginnings]
    if len(words) < len(pool.intents):
        raise ValueError(
            f"the vocabulary has {len(words)} whole words and {pool.dataset} "
            f"{len(pool.intents)} classes; train a base with a larger SentencePiece vocabulary"
        )
    words.sort(key=lambda i: (used[i], i))
    return dict(zip(pool.intents, words, strict=False))


def _is_word(piece: bytes) -> bool:
    return len(piece) >= 4 and piece[:1] == b" " and piece[1:].isalpha()


class Coder:
    """Token ids of examples.

    Args:
      tokenizer: of the base model.
      labels: the token of every class.
      longest: tokens of a prompt; of a longer one the utterance is cut at its end.

    Attributes:
      arrow, newline: the last token of every prompt, and the first.
    """

    def __init__(self, tokenizer, labels: dict[str, int], longest: int = 40):
        self.labels, self.longest = labels, longest
        self._encode = tokenizer.encode
        self._arrow = list(tokenizer.encode(ARROW))
        self._newline = list(tokenizer.encode("\n"))
        self.arrow, self.newline = self._arrow[-1], self._newline[0]
        self._known: dict[str, list[int]] = {}

    def prompt(self, text: str) -> list[int]:
        """A newline, the utterance and the arrow."""
        if text not in self._known:
            room = self.longest - len(self._newline) - len(self._arrow)
            said = list(self._encode(" " + " ".join(text.split())))[:room]
            self._known[text] = [*self._newline, *said, *self._arrow]
        return self._known[text]

    def example(self, example: Example) -> list[int]:
        """The prompt and the token of its class."""
        return [*self.prompt(example.text), self.labels[example.intent]]

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Prompts side by side, as wide as the longest of them asks for."""
        prompts = [self.prompt(one.text) for one in examples]
        lengths = np.array([len(p) for p in prompts])
        width = -(-lengths.max() // STEP) * STEP
        ids_NT = np.full((len(prompts), width), self._newline[0], np.int32)
        for row, prompt in zip(ids_NT, prompts, strict=True):
            row[: len(prompt)] = prompt
        label_N = np.array([self.labels[one.intent] for one in examples], np.int32)
        return Batch(ids_NT, lengths.astype(np.int32) - 1, label_N)

    def by_length(self, examples: Sequence[Example]) -> list[int]:
        """Places of examples, the shortest prompts first: batches of these hold few blanks."""
        return sorted(range(len(examples)), key=lambda i: len(self.prompt(examples[i].text)))

    def rows(self, examples: Sequence[Example], length: int) -> Iterator[np.ndarray]:
        """Whole examples one after the other, in rows of so many tokens that end in newlines.

        The last token of a row is always a newline, so what it teaches is complete.
        """
        row: list[int] = []
        for ids in map(self.example, examples):
            if len(row) + len(ids) + 1 > length:
                yield self._filled(row, length)
                row = []
            row += ids
        if row:
            yield self._filled(row, length)

    def context(self, examples: Sequence[Example], length: int) -> np.ndarray:
        """As many of the first examples as fit, newlines before them: int32 `[length]`."""
        row: list[int] = []
        for ids in map(self.example, examples):
            if len(row) + len(ids) > length:
                break
            row += ids
        blanks = self._newline * (length - len(row))
        return np.array(blanks + row, np.int32)

    def _filled(self, row: list[int], length: int) -> np.ndarray:
        return np.array(row + self._newline * (length - len(row)), np.int32)
