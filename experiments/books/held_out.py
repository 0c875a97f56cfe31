"""Loss on held-out books: windows from one end of a split to the other, losses by book."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hope_jax.data import Batches, Dataset
from hope_jax.data.windows import Windows
from hope_jax.evaluation.measurement import ratio
from hope_jax.models import LanguageModel
from hope_jax.training.held_out import HeldOutReader
from hope_jax.training.objective import token_losses


@dataclasses.dataclass(frozen=True)
class Spread:
    """Some windows of a split, as far from each other as they can be: the same ones always.

    Attributes:
      windows: of the split, read once and in order.
      count: how many of them, at most all.
    """

    windows: Windows
    count: int

    def __len__(self) -> int:
        return self.count

    def number(self, row: int) -> int:
        """Which window a row is: the middle one of its share of the split."""
        return (2 * row + 1) * len(self.windows) // (2 * self.count)

    def row(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a row; see `Windows.row`."""
        return self.windows.row(self.number(number))


class BookReader:
    """Losses by book, compiled once.

    Args:
      model: the language model.
      mesh: that of the parameters.
    """

    def __init__(self, model: LanguageModel, mesh: Mesh | None = None):
        self._read = HeldOutReader(_losses, model, mesh)

    def __call__(self, params: Any, held_out: Dataset, batches: int) -> dict[str, Any]:
        """Losses on `batches` batches that lie evenly over the split, or on all there are.

        Args:
          params: slow weights.
          held_out: the whole validation split of a period, a document a book.
          batches: how many at most.

        Returns:
          `loss`: nats per token. `standard_error`: of it, over books, whose lengths differ;
          None for one book. `windows`: how many were read. `documents`: books of the split.
          `books`: of those that were read the number in the split, tokens and nats per token.
        """
        spread = Spread(held_out.source, min(batches, len(held_out)) * held_out.batch)
        some = Batches(
            tokenizer=held_out.tokenizer,
            split=held_out.split,
            source=spread,
            identity=held_out.identity,
            batch=held_out.batch,
            rows=held_out.rows,
        )
        losses_NT = np.concatenate([*self._read(params, some, len(some), writes=True)])
        stream = held_out.source.stream
        book_of_token = np.cumsum(stream.read(0, stream.tokens)[1]) - 1
        found = by_book(losses_NT, spread, book_of_token)
        return {"documents": int(book_of_token[-1]) + 1, "windows": len(spread), **found}


def _losses(model: LanguageModel, params: Any, batch: dict[str, jax.Array], *, writes: bool):
    return token_losses(model, params, batch, writes=writes)[0]


def by_book(losses_NT: np.ndarray, spread: Spread, book_of_token: np.ndarray) -> dict[str, Any]:
    """Sum up losses by the book of the token that was predicted.

    Args:
      losses_NT: of rows of `spread`, `[N, T]`.
      spread: the rows.
      book_of_token: number of the book of every token of the split.

    Returns:
      `loss`, `standard_error` and `books`; see `BookReader`.
    """
    length = spread.windows.length
    firsts = [spread.number(row) * length for row in range(len(losses_NT))]
    of_loss = np.stack([book_of_token[n + 1 : n + 1 + length] for n in firsts]).ravel()
    tokens = np.bincount(of_loss)
    nats = np.bincount(of_loss, losses_NT.ravel().astype(np.float64))
    books = [[int(b), int(tokens[b]), float(nats[b] / tokens[b])] for b in tokens.nonzero()[0]]
    loss, error = over_books(books, [loss for *_, loss in books])
    return {"loss": loss, "standard_error": error, "books": books}


def over_books(
    books: Sequence[Sequence[Any]], per_token: Sequence[float]
) -> tuple[float, float | None]:
    """Mean over tokens of what is known book by book, and its standard error over books.

    >>> over_books([[0, 10, 1.0], [2, 30, 2.0]], [1.0, 2.0])
    (1.75, 0.375)
    >>> over_books([[0, 10, 1.0]], [1.0])
    (1.0, None)
    """
    tokens = [count for _, count, _ in books]
    sums = [count * value for count, value in zip(tokens, per_token, strict=True)]
    return ratio(sums, tokens)
