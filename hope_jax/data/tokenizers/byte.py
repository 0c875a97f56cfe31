"""One token per byte: no file, no training, nothing lost."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from hope_jax.data.tokenizers.protocol import check_ids, fingerprint_of

FILE = "tokenizer_byte.json"


class ByteTokenizer:
    """The byte is the token id; any byte string comes back unchanged.

    The vocabulary is exactly 256 by default: every id is a byte, and a document's end is
    told to the model by the reset flag alone. `end=True` adds a 257th id that ends each
    document, for a model that shall learn when to stop.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode("Ay\\r\\n").tolist(), tokenizer.decode([65, 121])
    ([65, 121, 13, 10], b'Ay')
    """

    begin_id = None

    def __init__(self, end: bool = False):
        self.end_id = 256 if end else None
        self.name = "byte+end" if end else "byte"
        self.vocab_size = 257 if end else 256
        self.fingerprint = fingerprint_of(self.name.encode())

    def encode(self, text: bytes | str) -> np.ndarray:
        """Byte values, int32 `[bytes]`; a `str` is taken as UTF-8."""
        data = text.encode("utf-8") if isinstance(text, str) else text
        return np.frombuffer(data, np.uint8).astype(np.int32)

    def decode(self, ids) -> bytes:
        """The bytes themselves; the end id gives nothing."""
        flat = check_ids(ids, self.vocab_size)
        return flat[flat < 256].astype(np.uint8).tobytes()

    def save(self, folder: str | pathlib.Path) -> None:
        """Write a one-line description into `folder`."""
        (pathlib.Path(folder) / FILE).write_text(self._description() + "\n")

    @classmethod
    def load(cls, path: str | pathlib.Path) -> ByteTokenizer:
        """Inverse of `save`; `path` is the file itself.

        Raises:
          ValueError: the file says something else.
        """
        text = pathlib.Path(path).read_text()
        for tokenizer in (cls(), cls(end=True)):
            if text.strip() == tokenizer._description():
                return tokenizer
        raise ValueError(f"{path} is not the description of a byte tokenizer: {text[:60]!r}")

    def _description(self) -> str:
        return json.dumps({"type": "byte", "end": self.end_id is not None})
