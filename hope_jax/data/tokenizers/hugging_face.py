"""A Hugging Face `tokenizer.json`."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from hope_jax.data.tokenizers.protocol import as_text, check_ids, fingerprint_of

FILE = "tokenizer.json"
# names that published tokenizers give to the end of a document, most specific first
_END_NAMES = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "<|eos|>",
)


def with_ends(content: bytes, begin_id: int | None, end_id: int | None) -> bytes:
    """The file `content` with a post-processor that puts these ids around a text."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    special = {i: tokenizer.id_to_token(i) for i in (begin_id, end_id) if i is not None}
    single = [special.get(begin_id), "$A", special.get(end_id)]
    tokenizer.post_processor = TemplateProcessing(
        single=[part for part in single if part is not None],
        special_tokens=[(token, i) for i, token in special.items()],
    )
    return tokenizer.to_str().encode("utf-8")


class HuggingFaceTokenizer:
    """A tokenizer in the `tokenizer.json` format.

    `encode` adds no special tokens. What the file puts before a text is `begin_id`, and what it
    puts after one, or else the token with a usual name for that, is `end_id`.

    Args:
      content: the bytes of the file.
    """

    def __init__(self, content: bytes):
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ImportError(
                "this tokenizer needs the package tokenizers: pip install tokenizers"
            ) from error
        try:
            self._tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(f"not a tokenizer.json: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # a marker in a text is only text
        self._content = content
        self.name = "tokenizer.json"
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values(), default=-1) + 1
        self.begin_id, end_id = self._ends()
        usual = next((ids[name] for name in _END_NAMES if name in ids), None)
        self.end_id = usual if end_id is None else end_id
        self.fingerprint = fingerprint_of(b"tokenizer.json", content)
        self._bytes = self._byte_table(content)

    def encode(self, text: bytes | str) -> np.ndarray:
        """Token ids, int32."""
        encoding = self._tokenizer.encode(as_text(text), add_special_tokens=False)
        return np.asarray(encoding.ids, np.int32)

    def decode(self, ids) -> bytes:
        """The text of `ids`; byte-level vocabularies may end inside a character."""
        flat = check_ids(ids, self.vocab_size)
        if self._bytes is not None:
            return b"".join(self._bytes[i] for i in flat)
        return self._tokenizer.decode(flat.tolist(), skip_special_tokens=True).encode("utf-8")

    def save(self, folder: str | pathlib.Path) -> None:
        """Write the file into `folder`."""
        (pathlib.Path(folder) / FILE).write_bytes(self._content)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> HuggingFaceTokenizer:
        """Read a `tokenizer.json`."""
        try:
            return cls(pathlib.Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def token_id(self, name: str) -> int:
        """The id of a token by its name, such as a marker of a chat.

        Raises:
          ValueError: there is none of this name.
        """
        index = self._tokenizer.token_to_id(name)
        if index is None:
            raise ValueError(f"no token of this tokenizer is named {name!r}")
        return index

    def _ends(self) -> tuple[int | None, int | None]:
        """The ids that the file's post-processor puts before and after a text."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        marked = self._tokenizer.encode("a", add_special_tokens=True).ids
        for first in (0, 1):
            rest = marked[first + len(plain) :]
            if marked[first : first + len(plain)] == plain and len(rest) < 2:
                return marked[0] if first else None, rest[0] if rest else None
        return None, None

    def _byte_table(self, content: bytes) -> list[bytes] | None:
        """Bytes of every id if the vocabulary is byte-level, else None."""
        decoder = json.loads(content).get("decoder") or {}
        if decoder.get("type") != "ByteLevel":
            return None
        added = self._tokenizer.get_added_tokens_decoder()
        byte_of = _byte_alphabet()
        table = []
        for index in range(self.vocab_size):
            token = self._tokenizer.id_to_token(index) or ""
            if index in added:
                table.append(b"" if added[index].special else token.encode("utf-8"))
            else:
                table.append(bytes(byte_of[c] for c in token if c in byte_of))
        return table


def _byte_alphabet() -> dict[str, int]:
    """Byte-level vocabularies write printable bytes as themselves and number the others
    from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    alphabet = {chr(b): b for b in printable}
    alphabet.update({chr(256 + n): b for n, b in enumerate(others)})
    return alphabet
