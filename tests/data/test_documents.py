"""Cutting documents into splits and pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hope_jax.data.documents import Document, pieces, split_documents


def splits(datas, validation):
    documents = [Document("x", data) for data in datas]
    out = {"train": [], "validation": []}
    for label, document in split_documents(documents, sum(map(len, datas)), validation):
        out[label].append(document.data)
    return out["train"], out["validation"]


@given(st.lists(st.binary(max_size=40), max_size=20), st.floats(0, 0.99))
def test_splits_keep_every_byte_in_order(datas, validation):
    train, held_out = splits(datas, validation)
    assert b"".join(train + held_out) == b"".join(datas)


def test_splits_follow_documents_where_they_can():
    datas = [bytes([n]) * 10 for n in range(20)]
    train, held_out = splits(datas, 0.12)  # 24 bytes: the cut is within the 18th document
    assert train == datas[:18] and held_out == datas[18:]
    assert splits(datas, 0.0) == (datas, [])


def test_a_large_document_is_divided_at_a_line():
    text = b"a line of text\n" * 100
    train, held_out = splits([text], 0.1)
    assert len(train) == len(held_out) == 1 and train[0].endswith(b"\n")
    assert 0.09 < len(held_out[0]) / len(text) < 0.12


@given(st.text(max_size=300), st.integers(4, 50))
def test_pieces_are_bounded_and_whole_characters(text, limit):
    document = Document("x", text.encode(), offset=7)
    parts = list(pieces(document, limit))
    assert b"".join(part.data for part in parts) == document.data
    position = 7
    for part in parts:
        assert len(part.data) <= limit and part.offset == position
        part.data.decode("utf-8")
        position += len(part.data)


@pytest.mark.parametrize("data", [b"\x80" * 100, b"\xff" * 101, b"\n" * 100, b""])
def test_pieces_of_bytes_that_are_no_text(data):
    assert b"".join(part.data for part in pieces(Document("x", data), 10)) == data
