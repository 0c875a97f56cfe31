"""The shipped corpus."""

import re

import pytest

from hope_jax.data import corpus


def test_every_play_is_in_exactly_one_split():
    train = [play.name for play in corpus.documents("train")]
    validation = [play.name for play in corpus.documents("validation")]
    assert len(set(train) | set(validation)) == len(train) + len(validation) == 38
    assert tuple(validation) == corpus.VALIDATION
    with pytest.raises(ValueError, match="'test'"):
        corpus.documents("test")


def test_text_is_plain():
    plays = corpus.documents("train") + corpus.documents("validation")
    assert sum(len(play.data) for play in plays) == 4_998_086
    for play in plays:
        text = play.data.decode("ascii")
        assert text.endswith(".\n") or text[-2] in "!?']ABCDEFGHIJKLMNOPQRSTUVWXYZ", play.name
        assert not re.search(r"[^\n\x20-\x7e]|[_*#\\$]|<|&[a-z]+;| \n|\n\n\n", text), play.name
        assert not re.search("gutenberg|copyright|edited by|transcri", text, re.I), play.name
