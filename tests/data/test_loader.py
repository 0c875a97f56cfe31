"""What the reader promises to training."""

import dataclasses
import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest

from hope_jax.config import DataConfig
from hope_jax.data import ByteTokenizer, corpus, open_dataset
from hope_jax.data.cache import prepared_corpus
from hope_jax.data.manifest import Manifest


@pytest.fixture
def config(prepared):
    return DataConfig(path=str(prepared), batch=8, length=64, seed=3)


def opened(config, split="train", host=0, hosts=1):
    """The part of one of several hosts, which share each batch equally."""
    rows = config.batch // hosts
    return open_dataset(config, split=split, rows=range(host * rows, (host + 1) * rows))


def take(dataset, count, state=None):
    iterator = iter(dataset)
    if state is not None:
        iterator.set_state(state)
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys() == {"tokens", "reset"}
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_batches_have_the_promised_form(config):
    (batch,) = take(opened(config), 1)
    assert batch["tokens"].shape == (8, 65) and batch["tokens"].dtype == np.int32
    assert batch["reset"].shape == (8, 64) and batch["reset"].dtype == bool
    assert batch["reset"][:, 0].all()


def test_validation_reads_the_split_once_and_in_order(config, texts):
    dataset = opened(config, "validation")
    batches = take(dataset, 10**6)
    assert len(batches) == len(dataset) > 2
    rows = np.concatenate([batch["tokens"] for batch in batches])
    np.testing.assert_array_equal(rows[1:, 0], rows[:-1, -1])  # windows share one token
    stream = rows[:, :-1].reshape(-1)
    np.testing.assert_array_equal(stream, dataset.tokens()[: stream.size])
    whole = b"".join(file.read_bytes() for file in sorted(texts.iterdir()))
    assert whole.endswith(dataset.tokenizer.decode(dataset.tokens()))
    assert whole.startswith(opened(config).tokenizer.decode(opened(config).tokens()))


def test_reset_marks_document_starts_inside_windows(config, texts):
    ends = np.cumsum([file.stat().st_size for file in sorted(texts.iterdir())])
    dataset = opened(config, "validation")
    first = ends[-1] - len(dataset.tokens())
    expected = np.zeros(len(dataset) * 8 * 64, bool)
    inside = ends[(ends >= first) & (ends < first + expected.size)] - first
    expected[inside] = True
    expected[::64] = True
    got = np.concatenate([b["reset"].reshape(-1) for b in take(dataset, 10**6)])
    np.testing.assert_array_equal(got, expected)
    never = opened(dataclasses.replace(config, reset="never"), "validation")
    got = np.concatenate([b["reset"] for b in take(never, 10**6)])
    assert got[:, 0].all() and not got[:, 1:].any()


def test_order_depends_on_seed_alone_and_changes_each_epoch(config):
    dataset = opened(config)
    epoch = len(dataset.source)
    rows = 3 * epoch // 8 * 8
    first = np.concatenate([b["tokens"] for b in take(dataset, rows // 8)])
    again = np.concatenate([b["tokens"] for b in take(opened(config), rows // 8)])
    np.testing.assert_array_equal(first, again)
    other = take(opened(dataclasses.replace(config, seed=4)), 1)[0]["tokens"]
    assert (other != first[:8]).any()
    assert (first[:epoch] != first[epoch : 2 * epoch]).any(axis=1).mean() > 0.9


def test_an_epoch_covers_the_stream_without_overlap(config):
    dataset = opened(config)
    stream, order = dataset.tokens(), dataset.source.order
    for epoch in range(3):
        numbers = range(epoch * len(dataset.source), (epoch + 1) * len(dataset.source))
        assert sorted(order[n] for n in numbers) == list(range(len(dataset.source)))
        phase = dataset.source.phase(epoch)
        assert 0 <= phase < 64
        assert stream.size - phase - len(dataset.source) * 64 < 2 * 64
        row = dataset.source.row(numbers[5])
        start = phase + order[numbers[5]] * 64
        np.testing.assert_array_equal(row["tokens"], stream[start : start + 65])
    assert len({dataset.source.phase(epoch) for epoch in range(20)}) > 5


def test_resume_mid_epoch_equals_uninterrupted(config):
    dataset = opened(config)
    whole = take(dataset, 40)
    iterator = iter(dataset)
    for _ in range(13):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    assert_same(whole[13:], take(opened(config), 27, state))
    assert_same(whole[13:14], [next(iterator)])  # asking for the state disturbs nothing
    iterator.set_state(state)
    assert_same(whole[13:15], [next(iterator), next(iterator)])
    iterator.close()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_any_number_of_hosts_gives_the_same_global_batches(config, split):
    whole = take(opened(config, split), 9)
    for hosts in (2, 4):
        parts = [take(opened(config, split, i, hosts), 9) for i in range(hosts)]
        joined = [
            {key: np.concatenate([p[key] for p in step]) for key in step[0]}
            for step in zip(*parts, strict=True)
        ]
        assert_same(whole, joined)


def test_a_run_goes_on_with_other_hosts_and_batch(config):
    whole = take(opened(config), 12)
    iterator = iter(opened(config, host=1, hosts=4))
    for _ in range(4):
        next(iterator)
    state = iterator.get_state()
    iterator.close()
    parts = [take(opened(config, "train", i, 2), 8, state) for i in range(2)]
    joined = [np.concatenate([a["tokens"], b["tokens"]]) for a, b in zip(*parts, strict=True)]
    np.testing.assert_array_equal(joined, [b["tokens"] for b in whole[4:]])
    doubled = take(opened(dataclasses.replace(config, batch=16)), 4, state)
    np.testing.assert_array_equal(
        np.concatenate([b["tokens"] for b in doubled]),
        np.concatenate([b["tokens"] for b in whole[4:]]),
    )


def test_validation_can_be_resumed_to_its_end(config):
    dataset = opened(config, "validation")
    whole = take(dataset, 10**6)
    iterator = iter(dataset)
    next(iterator)
    assert_same(whole[1:], take(dataset, 10**6, iterator.get_state()))
    state = {**iterator.get_state(), "row": len(dataset) * 8}
    assert take(dataset, 5, state) == []
    iterator.close()


@pytest.mark.slow
def test_reader_processes_give_the_same_batches(config):
    assert_same(
        take(opened(config), 5), take(opened(dataclasses.replace(config, workers=2)), 5)
    )


@pytest.mark.parametrize(
    "change", [{"length": 32}, {"seed": 4}, {"path": None}, {"reset": "never"}]
)
def test_a_position_of_other_data_is_refused(config, change):
    iterator = iter(opened(config))
    state = iterator.get_state()
    other = iter(opened(dataclasses.replace(config, **change)))
    if change == {"reset": "never"}:
        other.set_state(state)  # the same windows; only the flags differ
    else:
        with pytest.raises(ValueError, match="this position was saved with"):
            other.set_state(state)


def test_prepared_folder_can_be_moved(config, prepared, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(prepared, moved)
    expected = take(opened(config), 3)
    assert_same(expected, take(opened(dataclasses.replace(config, path=str(moved))), 3))


def test_a_split_shorter_than_a_window_is_refused(config):
    tokens = Manifest.read(pathlib.Path(config.path)).splits["train"].tokens
    for length in (tokens, tokens + 1):
        with pytest.raises(ValueError, match=f"has {tokens} tokens.*{length + 1}"):
            opened(dataclasses.replace(config, length=length))
    batch = take(opened(dataclasses.replace(config, length=tokens - 1)), 2)[1]
    assert batch["tokens"].shape == (8, tokens)  # one window is enough to train
    with pytest.raises(ValueError, match="fewer than data.batch 8000.*--validation"):
        opened(dataclasses.replace(config, batch=8000), "validation")


def test_bad_arguments_are_refused(config, prepared, tmp_path):
    with pytest.raises(ValueError, match="no split 'test'"):
        opened(config, "test")
    for rows in ((), (7, 8), (-1, 0)):
        with pytest.raises(ValueError, match="of a batch of 8"):
            open_dataset(config, rows=rows)
    with pytest.raises(ValueError, match="byte 93736889c1617285.*byte\\+end"):
        open_dataset(config, ByteTokenizer(end=True))
    with pytest.raises(ValueError, match="not prepared data.*hope prepare"):
        opened(dataclasses.replace(config, path=str(tmp_path)))
    damaged = tmp_path / "damaged"
    shutil.copytree(prepared, damaged)
    ByteTokenizer(end=True).save(damaged)
    with pytest.raises(ValueError, match="prepare the data again"):
        opened(dataclasses.replace(config, path=str(damaged)))
    (damaged / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        opened(dataclasses.replace(config, path=str(damaged)))


def test_shipped_corpus_is_the_default():
    dataset = open_dataset(DataConfig(), split="validation")
    assert dataset.vocab_size == 256 and dataset.bytes_per_token == 1.0
    plays = b"".join(play.data for play in corpus.documents("validation"))
    assert dataset.tokenizer.decode(dataset.tokens()) == plays
    assert prepared_corpus() == prepared_corpus()


def test_damaged_records_are_told(config, prepared, tmp_path):
    def harm(name):
        folder = tmp_path / name
        shutil.copytree(prepared, folder)
        (records,) = folder.rglob("*train.array_record*")
        return dataclasses.replace(config, path=str(folder)), records

    flipped, records = harm("flipped")
    data = bytearray(records.read_bytes())
    data[1000:1010] = bytes(byte ^ 255 for byte in data[1000:1010])
    records.write_bytes(data)
    missing, records = harm("missing")
    records.unlink()
    for damaged in (flipped, missing):
        with pytest.raises(ValueError, match="cannot be read.*prepare the data again"):
            opened(damaged).tokens()
    absent, records = harm("absent")
    shutil.rmtree(records.parent)
    with pytest.raises(ValueError, match="train-00000 is missing or damaged"):
        opened(absent)
