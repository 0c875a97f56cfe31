"""Text that comes in pieces is the text as a whole."""

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


def test_half_a_character_is_held_back():
    stream = TextStream(ByteTokenizer(), before=b"price: ")
    assert [stream.feed([b]) for b in "5€".encode()] == ["5", "", "", "€"]
    assert stream.close() == ""


def test_what_is_shown_stays_when_the_window_moves():
    text = "eins zwei drei vier f\N{LATIN SMALL LETTER U WITH DIAERESIS}nf sechs " * 3
    stream = TextStream(ByteTokenizer())
    assert "".join(stream.feed([b]) for b in text.encode()) == text
