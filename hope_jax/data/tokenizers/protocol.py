"""What every tokenizer offers."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Tokenizer(Protocol):
    """Text to integers and back.

    Attributes:
      name: what it is, for messages and manifests.
      vocab_size: every id is in [0, vocab_size).
      begin_id: the id that a text begins with, as those had that the vocabulary's model was
        trained on, or None.
      end_id: the id that ends a document, or None. Where there is none, a document's end
        is known only by the `reset` flag of the token after it.
      fingerprint: hash of everything that decides which ids a text gets.
    """

    name: str
    vocab_size: int
    begin_id: int | None
    end_id: int | None
    fingerprint: str

    def encode(self, text: bytes | str) -> np.ndarray:
        """Ids of a text, int32 `[tokens]`, without a begin id and an end id.

        Raises:
          UnicodeDecodeError: (a ValueError) the tokenizer needs UTF-8 and `text` is not;
            `.start` is the byte offset.
        """

    def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The text of `ids` as bytes; ids that stand for no text give nothing."""

    def save(self, folder: str | pathlib.Path) -> None:
        """Write the tokenizer into `folder`; `load_tokenizer(folder)` reads it back."""


def fingerprint_of(*parts: bytes) -> str:
    """Short hash of a tokenizer's content."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def as_text(text: bytes | str) -> str:
    """Decode UTF-8; a `str` passes."""
    return text if isinstance(text, str) else bytes(text).decode("utf-8")


def check_ids(ids: Sequence[int] | np.ndarray, vocab_size: int) -> np.ndarray:
    """`ids` as an int64 array `[T]`.

    Raises:
      ValueError: ids that are no whole numbers or not in one row, or an id outside the
        vocabulary.
    """
    given = np.asarray(ids)
    if given.ndim != 1:
        raise ValueError(f"token ids are in one row, [T], and these have shape {given.shape}")
    if given.size and given.dtype.kind not in "iu":
        raise ValueError(
            f"token ids are whole numbers; the first of these is {given[0]}, of type "
            f"{given.dtype}"
        )
    flat = given.astype(np.int64)
    wrong = flat[(flat < 0) | (flat >= vocab_size)]
    if wrong.size:
        raise ValueError(
            f"token id {wrong[0]} is outside the vocabulary of {vocab_size}; the ids come "
            "from another tokenizer or from a model with a larger vocabulary"
        )
    return flat
