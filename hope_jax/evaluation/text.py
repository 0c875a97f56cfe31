"""Perplexity and bits per byte of any text.

A document is read from a fresh state and as a whole, in memory that does not grow with it (but
for the keys and values that attention keeps). Its first token is predicted from the end-of-text
token, where the tokenizer has one, and else costs a uniform guess. Words are what blanks
separate, as in the word perplexity of EleutherAI's lm-evaluation-harness.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hope_jax.config.check import require
from hope_jax.data.documents import text_boundary
from hope_jax.evaluation.measurement import Measurement, exp, ratio, work
from hope_jax.evaluation.records import read_records
from hope_jax.evaluation.rows import Row, Score, begin
from hope_jax.evaluation.scorer import Scorer
from hope_jax.evaluation.task import Progress, Source, Task, find
from hope_jax.inference.reading import encode

NAME = "text"
FILES = ("text.jsonl", "text.txt")
FORMAT = 'a document per line, {"text"}, or one document as it is'
BLOCK = 1 << 20  # bytes of a file that are tokenised together
TOGETHER = 256  # lines that are held at once


@dataclasses.dataclass
class _Document:
    """A document's sums."""

    scores: list[Score]
    size: int
    words: int

    @property
    def nats(self) -> float:
        return -math.fsum(score.log_probability for score in self.scores)

    @property
    def tokens(self) -> int:
        return sum(score.tokens for score in self.scores)


def measure_text(
    scorer: Scorer, paths: list[Path], source: Source, progress: Progress
) -> list[Measurement]:
    """Figures of the documents of some files: one each, or, of .jsonl files, one a line.

    Args:
      scorer: of the model.
      paths: the files.
      source: its `limit` is of lines of a file; its `window` cuts documents into rows that
        begin fresh.
      progress: told of bytes.

    Raises:
      ValueError: a file is empty, or no text.
    """
    require(source.window is None or source.window >= 1, f"window of {source.window} tokens")
    progress.start(sum(path.stat().st_size for path in paths))
    documents: list[_Document] = []
    for path in paths:
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            documents += _lines(scorer, path, source, progress)
        else:
            documents.append(_file(scorer, path, source.window, progress))
    tokens = sum(document.tokens for document in documents)
    require(tokens > 0, f"{', '.join(map(str, paths))}: there is no text in it")
    read = work([score for document in documents for score in document.scores])
    nats = [document.nats for document in documents]
    per_token = ratio(nats, [document.tokens for document in documents])
    bits = ratio([x / math.log(2) for x in nats], [document.size for document in documents])
    per_word = ratio(nats, [max(document.words, 1) for document in documents])
    figures = {
        "perplexity": exp(*per_token),
        "bits_per_byte": bits,
        "word_perplexity": exp(*per_word),
    }
    return [
        Measurement(NAME, metric, value, len(documents), read, error)
        for metric, (value, error) in figures.items()
    ]


def blocks(path: Path, size: int = BLOCK) -> Iterator[bytes]:
    """The bytes of a file, cut at line ends or between characters."""
    held = b""
    with open(path, "rb") as file:
        while more := file.read(size):
            held += more
            if len(held) > size:
                place = text_boundary(held, size)
                yield held[:place]
                held = held[place:]
    if held:
        yield held


def _lines(scorer: Scorer, path: Path, source: Source, progress: Progress) -> list[_Document]:
    """A document a line, many read together."""
    texts = (record.text("text") for record in read_records(path))
    texts = filter(None, itertools.islice(texts, source.limit))
    documents = []
    while group := list(itertools.islice(texts, TOGETHER)):
        data = [text.encode("utf-8", errors="surrogatepass") for text in group]
        rows = [
            _rows(scorer, encode(scorer.model, scorer.tokenizer, text), source.window)
            for text in data
        ]
        scores = iter(scorer.score([[row] for of_one in rows for row in of_one]))
        for text, content, of_one in zip(group, data, rows, strict=True):
            found = [next(scores)[0] for _ in of_one]
            documents.append(_Document(found, len(content), len(text.split())))
        progress.advance(sum(map(len, data)))
    return documents


def _file(scorer: Scorer, path: Path, window: int | None, progress: Progress) -> _Document:
    """A whole file as one document."""
    document, inside = _Document([], 0, 0), False  # inside: the last block ended in a word

    def ids() -> Iterator[np.ndarray]:
        nonlocal inside
        for data in blocks(path):
            text = data.decode("utf-8", errors="replace")
            document.size += len(data)
            document.words += len(text.split()) - (inside and not text[0].isspace())
            inside = not text[-1].isspace()
            yield encode(scorer.model, scorer.tokenizer, data)
            progress.advance(len(data))

    if window is None:
        before = begin(scorer.tokenizer, np.zeros(0, np.int32)).ids_T
        document.scores.append(scorer.score_stream(ids(), before))
        return document
    held = np.zeros(0, np.int32)
    for part_T in itertools.chain(ids(), [None]):
        held = held if part_T is None else np.concatenate([held, part_T])
        whole = len(held) if part_T is None else len(held) // window * window
        rows = _rows(scorer, held[:whole], window)
        document.scores += [score for [score] in scorer.score([[row] for row in rows])]
        held = held[whole:]
    return document


def _rows(scorer: Scorer, ids_T: np.ndarray, window: int | None) -> list[Row]:
    """A row for each window, or one."""
    size = window or max(len(ids_T), 1)
    starts = range(0, len(ids_T), size)
    return [begin(scorer.tokenizer, ids_T[at : at + size]) for at in starts]


def _measure(scorer: Scorer, source: Source, progress: Progress) -> list[Measurement]:
    paths = list(source.texts) or [find(source, NAME, FILES, FORMAT)]
    return measure_text(scorer, paths, source, progress)


TASK = Task(NAME, FILES, FORMAT, _measure)
