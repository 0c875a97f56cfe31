"""Token ids as they come, to text that a terminal can show."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

_WINDOW = 8  # ids decoded again with the new ones, so that word boundaries come out right
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


def up_to(stop: str, pieces: Iterable[str]) -> Iterator[str]:
    """Text that comes in pieces, up to the first `stop` in it.

    What may be the beginning of `stop` is held back until it is known.

    >>> list(up_to("END", ["one E", "N two", " EN", "D three"]))
    ['one ', 'EN two', ' ']
    """
    held = ""
    for piece in pieces:
        held += piece
        if stop in held:
            if text := held[: held.index(stop)]:
                yield text
            return
        longest = min(len(stop) - 1, len(held))
        known = next((n for n in range(longest, 0, -1) if held.endswith(stop[:n])), 0)
        text, held = held[: len(held) - known], held[len(held) - known :]
        if text:
            yield text
    if held:
        yield held


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
        self._ids = [int(i) for i in before][-2 * _WINDOW :]
        self._cut(self._decode())
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
            self._cut(data)
            self._shown = len(self._decode())
        return text

    def _cut(self, data: bytes) -> None:
        """Keep the last ids alone, as many as do not begin inside a character.

        Some vocabularies make a whole row of byte tokens U+FFFD where its first is not the
        first of a character.
        """
        for count in range(_WINDOW, len(self._ids)):
            text = self._tokenizer.decode(self._ids[-count:])
            if not text.startswith(_REPLACEMENT) and data.endswith(text):
                self._ids = self._ids[-count:]
                return

    def close(self) -> str:
        """Return what was held back."""
        return self._utf8.decode(self._decode()[self._shown :], final=True)
