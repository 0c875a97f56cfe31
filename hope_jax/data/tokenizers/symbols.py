"""One token per symbol of a task: names between spaces."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from hope_jax.data.tokenizers.protocol import as_text, check_ids, fingerprint_of

FILE = "tokenizer_symbols.json"


class SymbolTokenizer:
    """Symbols by name, in the order of their ids.

    >>> tokenizer = SymbolTokenizer((".", "k0", "v0"))
    >>> tokenizer.encode("k0 v0 .").tolist(), tokenizer.decode([1, 2])
    ([1, 2, 0], b'k0 v0')
    """

    name = "symbols"
    begin_id = None
    end_id = None

    def __init__(self, symbols: Sequence[str]):
        self.symbols = tuple(symbols)
        self.vocab_size = len(self.symbols)
        self.fingerprint = fingerprint_of(*(symbol.encode() for symbol in self.symbols))
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    def encode(self, text: bytes | str) -> np.ndarray:
        """Ids of the names in `text`, int32 `[names]`.

        Raises:
          ValueError: a name that no symbol has.
        """
        found = as_text(text).split()
        unknown = [name for name in found if name not in self._ids]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is no symbol of this task; there are {self.vocab_size}, such "
                f"as {' '.join(self.symbols[:8])}"
            )
        return np.array([self._ids[name] for name in found], np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """Names with a space between."""
        return " ".join(self.symbols[i] for i in check_ids(ids, self.vocab_size)).encode()

    def save(self, folder: str | pathlib.Path) -> None:
        """Write the names into `folder`."""
        (pathlib.Path(folder) / FILE).write_text(json.dumps(self.symbols) + "\n")

    @classmethod
    def load(cls, path: str | pathlib.Path) -> SymbolTokenizer:
        """Inverse of `save`; `path` is the file itself.

        Raises:
          ValueError: the file is no list of names.
        """
        try:
            symbols = json.loads(pathlib.Path(path).read_text())
        except ValueError:
            symbols = None
        if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
            raise ValueError(f"{path} is damaged: it holds no list of symbols")
        return cls(symbols)
