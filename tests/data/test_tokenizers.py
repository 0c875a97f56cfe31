"""Every tokenizer gives back what it was given, or refuses it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hope_jax.data import corpus
from hope_jax.data.documents import Document
from hope_jax.data.tokenizers import ByteTokenizer, load_tokenizer, make_tokenizer

HOSTILE = [
    b"",
    b"one\r\ntwo\rthree\n",
    b"\xef\xbb\xbfwith a mark",
    b"nul\0nul\0",
    b"  blanks\t\tand \n\n\n lines  ",
    "é ☃ \U0001f600 a▁b▁▁c \u2028 \u202e".encode(),
    b"<end> </s> <unk> <0x41> <|endoftext|>",
]


@pytest.fixture(scope="module")
def sentencepiece():
    plays = corpus.documents("validation")[:1]
    return make_tokenizer("sentencepiece", vocab_size=600, documents=lambda: plays)


def byte_level_json():
    """A tokenizer.json with byte-level BPE, made on the spot."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    play = corpus.documents("validation")[0].data.decode()
    tokenizer.train_from_iterator(play[:50_000].splitlines(keepends=True), trainer)
    return tokenizer.to_str()


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    path.write_text(byte_level_json())
    return make_tokenizer(str(path))


@pytest.fixture(params=["byte", "byte+end", "sentencepiece", "hugging_face"])
def tokenizer(request):
    if request.param.startswith("byte"):
        return make_tokenizer(request.param)
    return request.getfixturevalue(request.param)


def round_trip(tokenizer, data):
    ids = tokenizer.encode(data)
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert tokenizer.end_id not in ids
    assert not ids.size or 0 <= ids.min() <= ids.max() < tokenizer.vocab_size
    assert tokenizer.decode(ids) == data


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_text_comes_back_unchanged(tokenizer, data):
    round_trip(tokenizer, data)
    round_trip(tokenizer, data * 3)


def test_str_and_bytes_are_the_same(tokenizer):
    text = "Ay, marry; naïve…"
    np.testing.assert_array_equal(tokenizer.encode(text), tokenizer.encode(text.encode()))


@given(st.binary(max_size=200))
def test_any_bytes_come_back_from_the_byte_tokenizer(data):
    round_trip(ByteTokenizer(), data)
    round_trip(ByteTokenizer(end=True), data)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=100))
def test_any_text_comes_back_from_subwords(sentencepiece, hugging_face, text):
    round_trip(sentencepiece, text.encode())
    round_trip(hugging_face, text.encode())


def test_decoding_piece_by_piece_equals_decoding_at_once(tokenizer):
    ids = tokenizer.encode("a naïve ☃ snowman")
    assert b"".join(tokenizer.decode([i]) for i in ids) == tokenizer.decode(ids)


def test_end_id_stands_for_no_text(tokenizer):
    if tokenizer.end_id is not None:
        assert tokenizer.decode([tokenizer.end_id]) == b""
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.decode([tokenizer.vocab_size])


def processed(template, special):
    """A tokenizer.json whose post-processor adds special tokens."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_str(byte_level_json())
    ids = [(mark, tokenizer.token_to_id(mark)) for mark in special]
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=ids)
    return tokenizer.to_str()


def test_what_a_file_puts_before_a_text_begins_it(tokenizer, tmp_path):
    assert tokenizer.begin_id is None
    mark = "<|endoftext|>"
    for template, begins in ((f"{mark} $A", True), (f"$A {mark}", False)):
        path = tmp_path / f"{begins}.json"
        path.write_text(processed(template, [mark]))
        loaded = load_tokenizer(path)
        assert (loaded.begin_id == loaded.end_id) == begins
        assert (loaded.begin_id is None) != begins
        assert loaded.begin_id not in loaded.encode(f"a {mark}")


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.vocab_size, loaded.end_id) == (tokenizer.vocab_size, tokenizer.end_id)
    data = corpus.documents("validation")[0].data[:500]
    np.testing.assert_array_equal(loaded.encode(data), tokenizer.encode(data))
    again = load_tokenizer(next(tmp_path.iterdir()))
    assert again.fingerprint == tokenizer.fingerprint


def test_invalid_utf8_is_refused_with_its_place(sentencepiece, hugging_face):
    for tokenizer in (sentencepiece, hugging_face):
        with pytest.raises(UnicodeDecodeError) as caught:
            tokenizer.encode(b"ok \xff")
        assert caught.value.start == 3


def test_subwords_are_shorter_than_bytes(sentencepiece, hugging_face):
    data = corpus.documents("validation")[0].data[:5_000]
    assert len(sentencepiece.encode(data)) < 0.6 * len(data)
    assert len(hugging_face.encode(data)) < 0.8 * len(data)


def test_training_is_repeatable_and_refuses_what_it_cannot_do(sentencepiece):
    plays = corpus.documents("validation")[:1]
    again = make_tokenizer("sentencepiece", vocab_size=600, documents=lambda: plays)
    assert again.fingerprint == sentencepiece.fingerprint
    with pytest.raises(ValueError, match="at least 300"):
        make_tokenizer("sentencepiece", vocab_size=256, documents=lambda: plays)
    bad = [Document("bad.txt", b"fine\n" * 10 + b"\xe9")]
    with pytest.raises(ValueError, match="bad.txt: byte 50 is not UTF-8"):
        make_tokenizer("sentencepiece", documents=lambda: bad)
    with pytest.raises(ValueError, match="smaller --vocab-size or more text"):
        make_tokenizer("sentencepiece", documents=lambda: [])
    one_line = [Document("one.txt", b"to be or not " * 20_000)]
    assert make_tokenizer("sentencepiece", vocab_size=300, documents=lambda: one_line)


def test_bad_files_are_refused(tmp_path):
    for name in ("x.json", "x.model", "tokenizer_byte.json", "x.txt"):
        (tmp_path / name).write_text(json.dumps({"nothing": 1}))
        with pytest.raises(ValueError, match=name):
            load_tokenizer(tmp_path / name)
    with pytest.raises(ValueError, match="does not exist"):
        load_tokenizer(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds 0 tokenizers"):
        load_tokenizer(tmp_path / "empty")
    with pytest.raises(ValueError, match="'bite' is neither"):
        make_tokenizer("bite")
