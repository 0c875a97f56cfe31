"""Streams: read, answer, forget, save, go back, and what they refuse."""

import json
import zipfile

import jax
import numpy as np
import pytest

from hope_jax.config import CMSConfig, InContextConfig, ModelConfig
from hope_jax.inference.archive import read_archive, write_archive
from hope_jax.inference.generate import Piece
from hope_jax.streams import Limits, Stream
from hope_jax.streams.levels import learning_config
from hope_jax.streams.storage import FORMAT

# The model is not trained: at the usual limits all that it reads would be noise to it.
LIMITS = Limits(surprise=None)

TEXT = "The harbour's new master is Anna Brandt, and the old one was her uncle. " * 2


def same(a, b):
    gaps = jax.tree.map(lambda x, y: float(abs(x - y).max()), a.fast_weights, b.fast_weights)
    return max(jax.tree.leaves(gaps)) < 1e-4 and np.allclose(
        a.state.logits_BW, b.state.logits_BW, atol=1e-3
    )


@pytest.fixture
def stream(base):
    return Stream.open(base, window=32, reservoir=1024, limits=LIMITS)


def test_reading_learns_and_says_how_surprising_it_was(stream):
    first, second = stream.read(TEXT), stream.read(TEXT)
    assert second < first
    surprise = stream.surprise()
    assert "".join(surprise.pieces) == TEXT
    assert surprise.mean == pytest.approx(second)
    assert stream.tokens_read == 2 * len(TEXT)
    assert len(stream.reservoir) == 2 * len(TEXT)
    changes = stream.diff()
    assert changes[1].fast > 0 and changes[1].total == pytest.approx(changes[1].fast)
    assert changes[4].total == 0  # its chunk is 0


def test_answers_leave_no_trace_unless_asked_to(stream):
    stream.read(TEXT)
    before = stream.copy()
    seen = []
    answer = stream.answer("The harbour", tokens=24, stop=None, on_text=seen.append)
    assert "".join(seen) == answer
    assert same(stream, before)
    assert stream.answer("The harbour", tokens=24, stop=None) == answer
    short = stream.answer("The harbour", tokens=24, stop=answer[3:5])
    assert short == answer[: answer.index(answer[3:5])]
    stream.answer("The harbour", tokens=24, stop=None, learn=True)
    before.read("The harbour" + answer)
    assert same(stream, before)


def test_a_dropped_context_is_gone_and_learned_weights_stay(stream):
    stream.read(TEXT)
    untold = stream.diff()[1].fast
    stream.forget_context()
    learned = stream.diff()[1].fast
    assert learned != untold  # the open chunk was learned from
    stream.forget_context()
    assert stream.diff()[1].fast == learned
    untouched = Stream.open(stream.base, limits=LIMITS)
    for state in (stream, untouched):
        state.read("Anna", learn=False)
    assert not np.allclose(stream.state.logits_BW, untouched.state.logits_BW, atol=1e-3)
    stream.forget_context(below=8)
    assert stream.diff()[1].fast == learned  # its period is 8
    stream.forget_context(below=9)
    assert stream.diff()[1].fast == 0
    stream.read("Anna", learn=False)
    np.testing.assert_allclose(stream.state.logits_BW, untouched.state.logits_BW, atol=1e-5)


@pytest.mark.parametrize("at", [16, 21])
def test_saved_and_opened_again_it_goes_on_as_if_nothing_had_been(stream, base, tmp_path, at):
    whole = stream.copy()
    whole.read(TEXT)
    stream.read(TEXT[:at])
    path = stream.save(tmp_path / "s")
    again = Stream.load(tmp_path / "s", checkpoint=base)
    assert (again.tokens_read, path.name) == (at, f"000001-{at}.npz")
    again.read(TEXT[at:])
    assert same(whole, again)
    np.testing.assert_array_equal(
        np.concatenate(whole.reservoir.windows()), np.concatenate(again.reservoir.windows())
    )


def test_earlier_points_can_be_gone_back_to(stream, base, tmp_path):
    for start in range(0, 40, 8):
        stream.read(TEXT[start : start + 8])
        stream.save(tmp_path, keep=3)
    assert Stream.points(tmp_path) == [24, 32, 40]
    assert Stream.load(tmp_path, point=32, checkpoint=base).tokens_read == 32
    with pytest.raises(FileNotFoundError, match="no point at 8 tokens; it has 24, 32, 40"):
        Stream.load(tmp_path, point=8, checkpoint=base)


def test_another_checkpoint_is_refused_with_both_fingerprints(stream, other, tmp_path):
    stream.save(tmp_path)
    with pytest.raises(
        ValueError, match="weights differ.* in the stream, .* in the checkpoint"
    ):
        Stream.load(tmp_path, checkpoint=other)


def test_what_is_damaged_or_missing_is_said(stream, base, tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved stream"):
        Stream.load(tmp_path / "nothing")
    path = stream.save(tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="damaged"):
        Stream.load(tmp_path, checkpoint=base)


def test_only_what_differs_is_saved(stream, tmp_path):
    stream.read(TEXT)
    path = stream.save(tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert not any(name.startswith("slow/") for name in archive.namelist())


def test_without_a_reservoir_no_text_is_kept(base, tmp_path):
    stream = Stream.open(base, reservoir=0, limits=LIMITS)
    text = "zyxwvutsrq " * 5
    stream.read(text)
    path = stream.save(tmp_path)
    with np.load(path) as archive:
        for name in archive.files:
            array = archive[name]
            if np.issubdtype(array.dtype, np.integer):
                codes = array.reshape(-1).tolist()
                assert bytes(c for c in codes if 0 <= c < 256).count(b"zyx") == 0, name
        json.loads(str(archive["manifest"]))
    again = Stream.load(tmp_path, checkpoint=base)
    for one in (stream, again):
        one.read("and on")
    assert same(stream, again)


def test_levels_may_be_others_than_in_training(base):
    stream = Stream.open(base, levels={1: 4, 4: 16}, lr=0.2, limits=LIMITS)
    stream.read(TEXT)
    changes = stream.diff()
    assert changes[1].fast > 0 and changes[4].fast > 0
    silent = Stream.open(base, levels={})
    silent.read(TEXT)
    assert not silent.learns and silent.diff()[1].total == 0
    silent.forget_context()
    with pytest.raises(ValueError, match="no level has period 3; the model has periods 1, 4"):
        Stream.open(base, levels={3: 8})
    with pytest.raises(ValueError, match="no level of this model learns"):
        Stream.open(base, levels={}, lr=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("hostile", [b"a" * 3000, bytes(np.random.default_rng(0).bytes(3000))])
def test_hostile_input_leaves_it_usable(base, hostile):
    stream = Stream.open(base, limits=Limits(norm=0.2, change=0.002, surprise=None))
    ordinary = Stream.open(base, limits=LIMITS)
    before = ordinary.read(TEXT)
    stream.read(hostile)
    assert stream.diff()[1].fast <= 0.2001
    stream.forget_context()
    assert np.isfinite(stream.read(TEXT))
    stream.forget_context(below=1000)
    assert stream.read(TEXT) == pytest.approx(before, rel=1e-3)


def test_nothing_to_read_changes_nothing(stream):
    stream.read("abcdef")
    before = stream.copy()
    assert np.isnan(stream.read(""))
    assert stream.answer("", tokens=0) == ""
    assert same(stream, before)


def test_ids_that_are_no_tokens_change_nothing(stream):
    stream.read("abcdef")
    before = stream.copy()
    for ids, said in (
        ([65, 300], "token id 300 is outside the vocabulary of 256"),
        ([1.5], "whole numbers; the first of these is 1.5, of type float64"),
        ([[65, 66]], r"one row, \[T\], and these have shape \(1, 2\)"),
    ):
        with pytest.raises(ValueError, match=said):
            stream.read_ids(np.asarray(ids))
    assert same(stream, before) and len(stream.reservoir) == len(before.reservoir)


def test_a_stop_ends_the_answer_and_none_of_it_is_shown(stream, monkeypatch):
    pieces = ["Anna Brandt.\nUs", "er: and then"]
    written = [Piece(text, [], None) for text in pieces]
    monkeypatch.setattr("hope_jax.streams.stream.write", lambda *args: iter(written))
    for stop, expected in (("\nUser:", "Anna Brandt."), ("\nYou:", "".join(pieces))):
        shown = []
        answer = stream.answer("Who?", stop=stop, on_text=shown.append)
        assert answer == "".join(shown) == expected
    with pytest.raises(ValueError, match="stop is empty"):
        stream.answer("Who?", stop="")


def test_levels_with_rates_of_their_own_can_be_left_out():
    how = InContextConfig(chunks=(8, 16, 32), lr=(0.1, 0.01, 0.001))
    config = ModelConfig(cms=CMSConfig((1, 4, 16), 24, in_context=how))
    of = lambda *args, **changes: learning_config(config, *args, **changes).cms.in_context
    assert of({}) == InContextConfig()
    assert of({1: 8}).lr == 0.1 and of({1: 8, 16: 64}).lr == (0.1, 0.001)
    assert of({1: 8}, lr=0.5).lr == 0.5
    assert of(None) == how


def test_what_is_not_learned_is_a_gap(base):
    with_gap, other = Stream.open(base, limits=LIMITS), Stream.open(base, limits=LIMITS)
    for stream, between in ((with_gap, "zz"), (other, "qq")):
        stream.read("abcd")
        stream.read(between, learn=False)
        stream.forget_context()
        stream.read("efghi")
    assert same(with_gap, other)  # neither is learned from, and both are out of the context
    joined = Stream.open(base, limits=LIMITS)
    joined.read("abcdefghi")
    gaps = jax.tree.map(
        lambda x, y: float(abs(x - y).max()), joined.fast_weights, with_gap.fast_weights
    )
    assert max(jax.tree.leaves(gaps)) > 1e-4  # here "d" is followed by "e"
    assert [len(w) for w in with_gap.reservoir.windows()] == [4, 5]


def test_points_are_in_the_order_of_saving(stream, base, other, tmp_path):
    stream.read("abcdefgh")
    stream.save(tmp_path, keep=2)
    early = Stream.open(base, limits=LIMITS)
    path = early.save(tmp_path, keep=2)
    assert path.exists() and Stream.points(tmp_path) == [8, 0]
    assert Stream.load(tmp_path, checkpoint=base).tokens_read == 0
    early.save(tmp_path, keep=2)
    assert Stream.points(tmp_path) == [0, 0]
    with pytest.raises(ValueError, match="began with another checkpoint"):
        Stream.open(other, limits=LIMITS).save(tmp_path)


@pytest.fixture
def damaged(stream, tmp_path):
    """Points at 8, 16 and 16 tokens; the last two of them are broken."""
    paths = []
    for text in ("abcdefgh", "ijklmnop", ""):
        stream.read(text)
        paths.append(stream.save(tmp_path))
    for path in paths[1:]:
        path.write_bytes(path.read_bytes()[:500])
    return tmp_path


def test_a_damaged_point_names_the_one_before_it(damaged, base):
    with pytest.raises(ValueError, match="000003-16.npz .* damaged: .* open 000002-16.npz,"):
        Stream.load(damaged, checkpoint=base)
    (damaged / "000003-16.npz").unlink()
    with pytest.raises(ValueError, match=r"000002-16.npz .* at 8 tokens \(.* --point 8\)"):
        Stream.load(damaged, checkpoint=base)
    first = damaged / "000001-8.npz"
    first.write_bytes(b"")
    with pytest.raises(ValueError, match="000001-8.npz .*; no point was saved before it"):
        Stream.load(damaged, point=8, checkpoint=base)


def test_damaged_points_are_kept_aside_when_an_earlier_one_goes_on(damaged, base, other):
    first = Stream.load(damaged, point=8, checkpoint=base)
    with pytest.raises(ValueError, match="began with another checkpoint"):
        Stream.open(other, limits=LIMITS).save(damaged)
    assert Stream.points(damaged) == [8, 16, 16]
    with pytest.warns(
        UserWarning, match="damaged: .*; it is kept as 00000.-16.npz.corrupt"
    ) as told:
        first.save(damaged)
    assert len(told) == 2
    names = sorted(file.name for file in damaged.iterdir())
    aside = [f"00000{number}-16.npz.corrupt" for number in (2, 3)]
    assert names == ["000001-8.npz", *aside, "000004-8.npz"]
    assert same(Stream.load(damaged, checkpoint=base), first)


def test_a_point_of_a_newer_version_is_not_called_damaged(stream, base, tmp_path):
    path = stream.save(tmp_path)
    manifest, arrays = read_archive(path, "a saved stream")
    write_archive(path, manifest | {"format": FORMAT + 1}, arrays)
    for use in (lambda: Stream.load(tmp_path, checkpoint=base), lambda: stream.save(tmp_path)):
        with pytest.raises(ValueError, match="^(?!.*damaged).*upgrade hope_jax"):
            use()
    assert path.exists()
