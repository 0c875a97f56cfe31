"""Token ids as they come, to text that a terminal can show."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

_WINDOW = 8  # ids decoded again with the new ones, so that word boundaries come out right
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


class TextStream:
    """Decode ids piece by piece; the pieces joined are the decoded whole.

    A character whose bytes are spread over several tokens is held back until it is
    complete; bytes that are no UTF-8 come out as U+FFFD.

    >>> from hope_jax.data import ByteTokenizer
    >>> stream = TextStream(ByteTokenizer())
    >>> [stream.feed([b]) for b in "a€".encode()] + [stream.close()]
    ['a', '', '', '€', '']
    """

    def __init__(self, tokenizer, before: Iterable[int] = ()):
        """`before`: ids that come before the text, for tokenizers that look at them."""
        self._tokenizer = tokenizer
        self._ids = [int(i) for i in before][-_WINDOW:]
        self._shown = len(self._decode())  # bytes of the window that have been given out
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def _decode(self) -> bytes:
        return self._tokenizer.decode(self._ids) if self._ids else b""

    def feed(self, ids: Iterable[int]) -> str:
        """Take more ids and return the text that they complete."""
        self._ids.extend(int(i) for i in ids)
        data = self._decode()
        stable = data
        while stable.endswith(_REPLACEMENT):  # maybe the first bytes of a character
            stable = stable[: -len(_REPLACEMENT)]
        text = self._utf8.decode(stable[self._shown :])
        self._shown = max(self._shown, len(stable))
        if len(stable) == len(data):
            self._ids = self._ids[-_WINDOW:]
            self._shown = len(self._decode())
        return text

    def close(self) -> str:
        """Return what was held back."""
        return self._utf8.decode(self._decode()[self._shown :], final=True)
