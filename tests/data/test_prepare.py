"""Preparing text: nothing is lost, nothing is half done."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hope_jax.config import DataConfig
from hope_jax.data import ByteTokenizer, make_tokenizer, open_dataset
from hope_jax.data.cache import prepared_corpus
from hope_jax.data.documents import Document
from hope_jax.data.manifest import Manifest
from hope_jax.data.prepare import SPLITS, prepare
from hope_jax.data.records import RECORD, StreamStats, TokenStream, write_records
from hope_jax.data.sources import TextSource

BYTE = ByteTokenizer()


def read(folder, split="train", batch=1, length=1):
    config = DataConfig(path=str(folder), batch=batch, length=length)
    return open_dataset(config, split=split)


def stored(documents, tokenizer):
    """The stream of `documents`, without a disk between."""
    stats = StreamStats()
    source = list(write_records(documents, tokenizer, stats, lambda count: None))
    tokens, starts = TokenStream(source, stats.tokens).read(0, stats.tokens)
    return tokens, np.flatnonzero(starts).tolist(), stats


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.binary(max_size=60) | st.integers(4000, 4200).map(bytes), max_size=6),
    st.booleans(),
)
def test_records_keep_every_document(datas, end):
    tokenizer = ByteTokenizer(end=end)
    tokens, starts, stats = stored([Document("x", data) for data in datas], tokenizer)
    kept = [data for data in datas if data or end]
    bounds = [*starts, stats.tokens]
    got = [tokenizer.decode(tokens[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    assert got == kept
    assert (stats.documents, stats.empty_documents) == (len(kept), len(datas) - len(kept))
    assert stats.bytes == sum(map(len, datas))
    if end:
        assert all(tokens[b - 1] == 256 for b in bounds[1:])


def test_documents_begin_with_what_texts_begin_with():
    tokenizer = ByteTokenizer(end=True)
    tokenizer.begin_id = 7
    documents = [Document("x", data) for data in (b"ab", b"", b"c")]
    tokens, starts, _ = stored(documents, tokenizer)
    assert tokens.tolist() == [7, 97, 98, 256, 256, 7, 99, 256]
    assert starts == [0, 4, 5]


def test_windows_read_the_same_wherever_they_fall():
    data = np.random.default_rng(0).bytes(3 * RECORD + 17)
    stats = StreamStats()
    source = list(write_records([Document("x", data)], BYTE, stats, lambda count: None))
    stream = TokenStream(source, stats.tokens)
    for start, stop in [(0, 1), (RECORD - 1, RECORD + 1), (5, 2 * RECORD + 9), (9, 9)]:
        assert BYTE.decode(stream.read(start, stop)[0]) == data[start:stop]
    assert BYTE.decode(stream.read(3 * RECORD, len(data))[0]) == data[3 * RECORD :]
    with pytest.raises(IndexError):
        stream.read(0, len(data) + 1)


def test_hostile_files_come_back_unchanged(tmp_path):
    files = {
        "a-crlf.txt": b"one\r\ntwo\r\n",
        "b-mark.txt": b"\xef\xbb\xbfmark",
        "c-nul.txt": b"\0a\0\0",
        "d-empty.txt": b"",
        "e-line.txt": b"no line end " * 430_000,  # more than 5 MB
        "f-latin.txt": b"na\xefve \xff\xfe \xc3",
        "sub/g.txt": b"below",
        ".hidden": b"not read",
    }
    texts = tmp_path / "texts"
    for name, data in files.items():
        (texts / name).parent.mkdir(parents=True, exist_ok=True)
        (texts / name).write_bytes(data)
    out = tmp_path / "out"
    manifest = prepare(out, TextSource([texts], validation=0), BYTE)
    wanted = [files[name] for name in sorted(files) if not name.startswith(".")]
    assert BYTE.decode(read(out).tokens()) == b"".join(wanted)
    train = manifest.splits["train"]
    assert (train.documents, train.empty_documents) == (6, 1)
    assert manifest.splits["validation"].tokens == 0
    tokens, starts = read(out).source.stream.read(0, train.tokens)
    sizes = [len(data) for data in wanted if data]
    assert np.flatnonzero(starts).tolist() == [0, *np.cumsum(sizes)[:-1].tolist()]
    with pytest.raises(ValueError, match="validation split.*has 0 tokens"):
        read(out, "validation")


@pytest.mark.parametrize("separator", [None, "-----"])
def test_text_tokenizer_refuses_bytes_with_file_and_offset(tmp_path, separator):
    model = make_tokenizer(
        "sentencepiece", vocab_size=300, documents=lambda: [Document("x", b"some text\n" * 50)]
    )
    good, bad = tmp_path / "good.txt", tmp_path / "some.txt"
    good.write_bytes(b"fine\n")
    bad.write_bytes(b"first\n-----\r\nna" + b"\xef" + b"ve\n")
    source = TextSource([good, bad], separator=separator, validation=0)
    with pytest.raises(ValueError, match=r"some\.txt: byte 15 is not UTF-8"):
        prepare(tmp_path / "out", source, model)
    assert not (tmp_path / "out").exists()


def test_separator_lines_divide_a_file(tmp_path):
    text = tmp_path / "text.txt"
    text.write_bytes(b"one\n-- \n--\ntwo\r\n--\r\nthree --\n--\n--\nfour")
    documents = list(TextSource([text], separator="--", validation=0).documents("train"))
    assert [d.data for d in documents] == [
        b"one\n-- \n",
        b"two\r\n",
        b"three --\n",
        b"",
        b"four",
    ]
    whole = text.read_bytes()
    for document in documents:
        assert whole[document.offset :].startswith(document.data)


def test_separators_do_not_count_as_text(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("<|endoftext|>\n".join(f"{n:03}\n" for n in range(100)))
    source = TextSource([text], separator="<|endoftext|>", validation=0.1)
    assert source.size() == 400
    assert [len(list(source.documents(split))) for split in SPLITS] == [90, 10]


def test_named_validation_files(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    source = TextSource([tmp_path / "c"], validation_paths=[tmp_path / "a", tmp_path / "b"])
    found = [[d.data[:] for d in source.documents(split)] for split in SPLITS]
    assert found == [[b"c"], [b"a", b"b"]] and source.size() == 3
    assert source.describe()["files"] == 3


def test_patterns_and_missing_files(tmp_path):
    (tmp_path / "a.md").write_text("yes")
    (tmp_path / "b.txt").write_text("no")
    source = TextSource([tmp_path], pattern="*.md", validation=0)
    assert [d.data[:] for d in source.documents("train")] == [b"yes"]
    for paths, pattern in [([tmp_path / "none"], "*"), ([tmp_path], "*.py")]:
        with pytest.raises(ValueError, match="does not exist|no file matches"):
            TextSource(paths, pattern=pattern)
    with pytest.raises(ValueError, match=r"fraction is 1\.0"):
        TextSource([tmp_path], validation=1.0)


def test_existing_folders_are_safe(texts, tmp_path):
    source = TextSource([texts])
    taken = tmp_path / "taken"
    taken.mkdir()
    prepare(taken, source, BYTE)  # an empty folder is no obstacle
    with pytest.raises(ValueError, match="use --force"):
        prepare(taken, source, BYTE)
    before = read(taken).manifest
    prepare(taken, source, ByteTokenizer(end=True), force=True)
    assert read(taken).vocab_size == 257 and before.vocab_size == 256
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(ValueError, match="is not prepared data"):
        prepare(mine, source, BYTE, force=True)
    assert (mine / "thesis.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "taken"]


def test_failed_replacement_keeps_the_old_data(texts, tmp_path):
    out = tmp_path / "out"
    prepare(out, TextSource([texts]), BYTE)
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(ValueError, match="no text to train on"):
        prepare(out, TextSource([empty]), BYTE, force=True)
    assert read(out).vocab_size == 256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "out"]


def test_unwritable_places_are_refused(texts, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="out cannot be written"):
        prepare(tmp_path / "file" / "out", TextSource([texts]), BYTE)
    monkeypatch.setenv("HOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set HOPE_CACHE to a folder"):
        prepared_corpus()


_FULL_DISK = """
import resource, signal, sys
from hope_jax.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a full disk would
sys.exit(main(["prepare", sys.argv[1]]))
"""


def test_full_disk_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "out cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_nothing(tmp_path, texts):
    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "out", TextSource([texts]), BYTE, advance=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_corpus_is_prepared_once_also_by_many_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOPE_CACHE", str(tmp_path / "cache"))
    script = (
        "import sys; from hope_jax.data.cache import prepared_corpus;"
        "print('ready', flush=True); sys.stdin.readline(); print(prepared_corpus())"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    folders = {process.communicate("go\n")[0].strip() for process in running}
    assert all(process.returncode == 0 for process in running)
    assert folders == {str(prepared_corpus())}
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_manifest_counts_and_identity(texts, tmp_path):
    first = prepare(tmp_path / "a", TextSource([texts], validation=0.2), BYTE)
    second = prepare(tmp_path / "b", TextSource([texts], validation=0.2), BYTE)
    assert first == second == Manifest.read(tmp_path / "a")
    total = sum(file.stat().st_size for file in texts.iterdir())
    assert sum(split.bytes for split in first.splits.values()) == total
    assert sum(split.documents for split in first.splits.values()) == 30
    assert 0.1 < first.splits["validation"].bytes / total < 0.3
    for change, match in [
        ({"format": 99}, "format 99"),
        ({"record": 12}, "records of 12"),
        ({"splits": 3}, "damaged"),
        ({"surprise": 3}, "damaged"),
    ]:
        path = tmp_path / "b" / "manifest.json"
        good = path.read_text()
        path.write_text(json.dumps(json.loads(good) | change))
        with pytest.raises(ValueError, match=match):
            Manifest.read(tmp_path / "b")
        path.write_text(good)
