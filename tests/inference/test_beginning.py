"""A text begins with the token that the model's texts began with, wherever it is read."""

import dataclasses

import jax
import numpy as np
import pytest

import hope_jax
from hope_jax.checkpoint.load import Loaded
from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    InContextConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from hope_jax.data import ByteTokenizer
from hope_jax.evaluation.rows import pair_row, text_row
from hope_jax.inference import generate, read
from hope_jax.inference.limits import Limits
from hope_jax.models import LanguageModel, init_params
from hope_jax.streams.dreams import dream
from hope_jax.streams.many import ManyStreams
from hope_jax.streams.sleep import Sleep, _replayed

BEGIN = 256
TEXT = "the harbour"


class BeginningBytes(ByteTokenizer):
    """Bytes, and one token more that every text begins with."""

    begin_id = BEGIN

    def __init__(self):
        super().__init__()
        self.vocab_size = 257


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    cms = CMSConfig((1,), 24, in_context=InContextConfig(chunks=(4,), lr=0.5))
    model = ModelConfig(
        vocab_size=257, dim=16, depth=2, mixer=AttentionConfig(heads=2), cms=cms
    )
    params = init_params(model, jax.random.key(0))
    config = TrainConfig(model=model, optim=OptimConfig(lr=1e-2))
    folder = tmp_path_factory.mktemp("checkpoint")
    return Loaded(config, LanguageModel(model), params, BeginningBytes(), 0, {}, folder)


def stream_of(base, plain=False):
    """A stream; with `plain` by a tokenizer that does not know of the token."""
    if plain:
        tokenizer = BeginningBytes()
        tokenizer.begin_id = None
        base = dataclasses.replace(base, tokenizer=tokenizer)
    limits = Limits(surprise=None)
    return hope_jax.Stream.open(base, limits=limits, reservoir=64, window=8)


def ids(text):
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def same(one, other):
    for a, b in zip(jax.tree.leaves(one.state), jax.tree.leaves(other.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_reading_is_reading_the_token_and_then_the_text(base):
    parts = base.model, base.params
    found = read(*parts, base.tokenizer, TEXT, learns=False)
    by_hand = stream_of(base, plain=True)
    by_hand.read_ids(np.concatenate([[BEGIN], ids(TEXT)]).astype(np.int32), learn=False)
    np.testing.assert_allclose(found.loss_T, by_hand.surprise().loss_T[1:], rtol=1e-4)
    assert len(found.loss_T) == len(TEXT)
    more = read(*parts, base.tokenizer, "!", found.state)
    assert len(more.loss_T) == 1  # no second beginning


def test_streams_begin_once_until_they_forget(base):
    stream, by_hand = stream_of(base), stream_of(base, plain=True)
    stream.read("")
    for text in ("the har", "bour"):
        stream.read(text)
    by_hand.read_ids(np.concatenate([[BEGIN], ids(TEXT)]).astype(np.int32))
    same(stream, by_hand)
    assert stream.tokens_read == len(TEXT) and "".join(stream.surprise().pieces) == "bour"
    for one in (stream, by_hand):
        one.forget_context()
    stream.read("new")
    by_hand.read_ids(np.asarray([BEGIN, *b"new"], np.int32))
    same(stream, by_hand)


def test_an_answer_from_an_empty_context_begins_too(base):
    by_hand = stream_of(base, plain=True)
    by_hand.read_ids(np.asarray([BEGIN], np.int32), learn=False)
    answer = stream_of(base).answer("the", tokens=4, stop=None)
    assert answer == by_hand.answer("the", tokens=4, stop=None)
    parts = base.model, base.params, base.tokenizer
    assert len(generate(*parts, "", tokens=3, temperature=0).ids) == 3


def test_many_streams_begin_each_for_itself(base):
    many, one = ManyStreams(stream_of(base), 2), stream_of(base)
    losses = many.read([TEXT, ""])
    assert list(map(len, losses)) == [len(TEXT), 0]
    losses = many.read(["!", TEXT])
    one.read(TEXT)
    np.testing.assert_allclose(losses[1], one.surprise().loss_T, rtol=1e-4)
    one.read("!")
    np.testing.assert_allclose(losses[0], one.surprise().loss_T, rtol=1e-4)


@pytest.mark.slow
def test_sleep_reads_windows_from_the_beginning(base):
    stream = stream_of(base)
    stream.read(TEXT)
    windows, marks = _replayed(stream, Sleep(replay="both", generated=2))
    assert windows.shape == (4, 9) and (windows[:, 0] == BEGIN).all()
    assert (windows[:, 1:] != BEGIN).any() and marks[:, 0].all()
    assert all(w[0] == BEGIN and len(w) == 9 for w in dream(stream, 2, 0, awake=False))
    report = stream.sleep(Sleep(steps=2, samples=2, batch=2), progress=False)
    assert np.isfinite(report.after)


def test_scores_are_after_the_token(base):
    row = pair_row(base.model, base.tokenizer, "To be", " or")
    assert row.ids_T.tolist() == [BEGIN, *b"To be or"] and row.start == 6
    row = text_row(base.model, base.tokenizer, "To")
    assert row.ids_T.tolist() == [BEGIN, *b"To"] and row.start == 1
    row = pair_row(base.model, base.tokenizer, "", "To")
    assert row.ids_T.tolist() == [BEGIN, *b"To"] and row.start == 1
