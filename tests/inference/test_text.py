"""Text that comes in pieces is the text as a whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hope_jax.data import ByteTokenizer
from hope_jax.inference import TextStream


@settings(deadline=None, max_examples=100)
@given(
    data=st.text(max_size=30).map(str.encode) | st.binary(max_size=30), size=st.integers(1, 5)
)
def test_pieces_join_to_the_whole(data, size):
    stream = TextStream(ByteTokenizer())
    pieces = [stream.feed(data[i : i + size]) for i in range(0, len(data), size)]
    assert "".join([*pieces, stream.close()]) == data.decode("utf-8", errors="replace")


def byte_fallback():
    """As Llama 2 has it: what is no token of its own is written in bytes."""
    from tokenizers import Tokenizer, decoders, models

    from hope_jax.data.tokenizers.hugging_face import HuggingFaceTokenizer

    tokens = [f"<0x{b:02X}>" for b in range(256)] + list("abcdefg")
    model = models.BPE({t: i for i, t in enumerate(tokens)}, [], byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return HuggingFaceTokenizer(tokenizer.to_str().encode())


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_characters_in_byte_tokens_stay_whole(size):
    tokenizer, text = byte_fallback(), "abcdefg" + "今日は良い" * 6 + "cafe"
    ids = tokenizer.encode(text)
    for begin in range(4):
        stream = TextStream(tokenizer, before=ids[:begin])
        pieces = [stream.feed(ids[i : i + size]) for i in range(begin, len(ids), size)]
        assert "".join([*pieces, stream.close()]) == text[begin:]


def test_half_a_character_is_held_back():
    stream = TextStream(ByteTokenizer(), before=b"price: ")
    assert [stream.feed([b]) for b in "5€".encode()] == ["5", "", "", "€"]
    assert stream.close() == ""


def test_what_is_shown_stays_when_the_window_moves():
    text = "eins zwei drei vier f\N{LATIN SMALL LETTER U WITH DIAERESIS}nf sechs " * 3
    stream = TextStream(ByteTokenizer())
    assert "".join(stream.feed([b]) for b in text.encode()) == text
