"""Preparation by many workers: the same stream as by one, whatever stops it."""

import dataclasses
import gzip
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hope_jax.cli.main import main
from hope_jax.config import DataConfig
from hope_jax.data import corpus, open_dataset
from hope_jax.data.manifest import Manifest
from hope_jax.data.records import RECORD
from hope_jax.data.sources import TextSource
from hope_jax.data.verify import verify

pytest.importorskip("apache_beam", reason='needs the extra: pip install -e ".[test,beam]"')

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

from hope_jax.data.beam.pipeline import prepare_with_beam
from hope_jax.data.beam.plan import Plan, Shard
from hope_jax.data.beam.shards import read_documents

HERE = ["--direct_running_mode=in_memory"]
WORKERS = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
ANYWHERE = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
pytestmark = ANYWHERE  # of Beam's own


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """Two packed and two plain files of JSON lines, 40 documents each."""
    folder = tmp_path_factory.mktemp("lines")
    plays = b"".join(play.data for play in corpus.documents("validation")).decode()
    rng = np.random.default_rng(0)
    for number in range(4):
        starts = rng.integers(0, 50_000, 40)
        texts = [plays[start : start + rng.integers(1, 2000)] for start in starts]
        texts[7] = ""
        data = "".join(json.dumps({"text": text, "url": "x"}) + "\n" for text in texts)
        if number < 2:
            with gzip.open(folder / f"{number}.json.gz", "wt") as file:
                file.write(data)
        else:
            (folder / f"{number}.json").write_text(data)
    return folder


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """A text to hold out."""
    path = tmp_path_factory.mktemp("held_out") / "held_out.json"
    path.write_text(json.dumps({"text": "To be, or not to be. " * 300}) + "\n")
    return path


def prepare(folder, *arguments, beam=HERE):
    passed = [] if beam is None else ["--", *beam]
    return main(["prepare", str(folder), "--beam", *map(str, arguments), *passed])


def stream(folder, split="train"):
    """All tokens of a split, and where documents start."""
    config = DataConfig(path=str(folder), batch=1, length=1)
    whole = open_dataset(config, split=split).source.stream
    tokens, starts = whole.read(0, whole.tokens)
    return tokens, np.flatnonzero(starts)


def content(folder):
    """Every file that decides what training reads."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "plan.json"
    }


def assert_same_stream(a, b, splits=("train", "validation")):
    for split in splits:
        for x, y in zip(stream(a, split), stream(b, split), strict=True):
            np.testing.assert_array_equal(x, y)


def test_many_shards_are_the_stream_of_one_machine(lines, held_out, tmp_path, capsys):
    text = ["--input", lines, "--validation-input", held_out, "--jsonl", "text"]
    text += ["--tokenizer", "byte+end"]
    assert main(["prepare", str(tmp_path / "one"), *map(str, text)]) == 0
    for name, limit in (("whole", 10**9), ("cut", 9_000)):
        plan = Plan.make(
            [str(lines)],
            "byte+end",
            validation_paths=[str(held_out)],
            jsonl="text",
            shard_bytes=limit,
        )
        from hope_jax.data import ByteTokenizer

        made = prepare_with_beam(
            str(tmp_path / name), plan, lambda sample: ByteTokenizer(end=True), HERE
        )
        assert_same_stream(tmp_path / "one", tmp_path / name)
        one = Manifest.read(tmp_path / "one")
        for split, info in made.splits.items():
            other = dataclasses.asdict(one.splits[split])
            for count in ("tokens", "bytes", "documents", "empty_documents"):
                assert getattr(info, count) == other[count]
    assert len(made.splits["train"].shards) > 6  # plain files were cut
    assert made.splits["train"].documents == 160


def test_windows_across_shards_are_cut_from_one_stream(lines, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(out, "--input", lines, "--jsonl", "text", "--validation", "0") == 0
    plan = Plan.make([str(lines)], "byte", jsonl="text", validation=0.0, shard_bytes=9_000)
    from hope_jax.data import ByteTokenizer

    cut = tmp_path / "cut"
    made = prepare_with_beam(str(cut), plan, lambda sample: ByteTokenizer(), HERE)
    assert any(shard.tokens % RECORD for shard in made.splits["train"].shards[:-1])
    batches = [
        next(iter(open_dataset(DataConfig(path=str(folder), batch=4, length=3000))))
        for folder in (out, cut)
    ]
    for key in ("tokens", "reset"):
        np.testing.assert_array_equal(batches[0][key], batches[1][key])


@pytest.mark.slow
def test_processes_write_the_same_bytes_as_one(lines, tmp_path, capsys):
    text = ["--input", lines, "--jsonl", "text", "--validation", "0.3"]
    assert prepare(tmp_path / "one", *text, beam=HERE) == 0
    assert prepare(tmp_path / "two", *text, beam=WORKERS) == 0
    assert prepare(tmp_path / "default", *text, beam=None) == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "default")


def test_held_out_documents_are_chosen_by_their_text(lines, tmp_path, capsys):
    def held_out_texts(limit):
        plan = Plan.make([str(lines)], "byte", jsonl="text", validation=0.25, shard_bytes=limit)
        split: dict[str, list[bytes]] = {"train": [], "validation": []}
        for shard in plan.shards():
            split[shard.split] += [d.data for d in read_documents(plan, shard)]
        return split

    whole, cut = held_out_texts(10**9), held_out_texts(9_000)
    assert whole == cut
    assert not set(whole["train"]) & set(whole["validation"])
    assert len(whole["train"]) + len(whole["validation"]) == 160
    assert 20 <= len(whole["validation"]) <= 60


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 11, 1000])
@pytest.mark.parametrize(
    "data",
    [
        b"one\n--\ntwo\r\n--\r\nthree\n--\n--\nfour",
        b"--\n--\n",
        b"a\n--",
        b"--\r\nlong line without any end",
        b"no separator\n" * 3,
        b"x --\n--x\n",
        b"",
    ],
)
def test_any_cut_of_a_file_gives_its_documents(data, limit, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    wanted = list(TextSource([path], separator="--", validation=0).documents("train"))
    plan = Plan.make([str(path)], "byte", separator="--", validation=0.0, shard_bytes=limit)
    got = [d for shard in plan.shards() for d in read_documents(plan, shard)]
    assert [(d.offset, d.data) for d in got] == [(d.offset, d.data) for d in wanted]
    assert sum(len(s.pieces) for s in plan.shards()) == max(1, -(-len(data) // limit))


@pytest.mark.parametrize("limit", [1, 10, 25, 1000])
def test_any_cut_of_json_lines_gives_its_documents(limit, tmp_path):
    path = tmp_path / "text.json"
    path.write_text('{"t": "a"}\n\n{"t": "bb"}\r\n{"t": "ccc", "u": 1}')
    plan = Plan.make([str(path)], "byte", jsonl="t", validation=0.0, shard_bytes=limit)
    got = [d for shard in plan.shards() for d in read_documents(plan, shard)]
    assert [(d.offset, d.data) for d in got] == [(0, b"a"), (12, b"bb"), (25, b"ccc")]


def test_shards_depend_on_names_and_sizes_alone(lines, tmp_path):
    plan = Plan.make([f"{lines}/*.json"], "byte", jsonl="text", shard_bytes=20_000)
    again = Plan.make([f"{lines}/*.json"], "byte", jsonl="text", shard_bytes=20_000)
    assert plan == again and plan.shards() == again.shards()
    for split in ("train", "validation"):
        own = [shard for shard in plan.shards() if shard.split == split]
        assert [shard.number for shard in own] == list(range(len(own)))
        assert sum(shard.size for shard in own) == sum(f.size for f in plan.files["train"])
    packed = Plan.make([str(lines / "0.json.gz")], "byte", jsonl="text", shard_bytes=10)
    (first, *_) = packed.shards()
    assert isinstance(first, Shard) and first.pieces[0].stop is None


def test_finished_shards_are_kept_and_damaged_ones_made_again(lines, tmp_path, capsys):
    out = tmp_path / "out"
    text = ["--input", lines, "--jsonl", "text"]
    assert prepare(out, *text) == 0
    before = content(out)
    (records,) = out.glob("train-*/**/*array_record*")
    (kept,) = out.glob("validation-*/**/*array_record*")
    stamp = kept.stat().st_mtime_ns
    data = bytearray(records.read_bytes())
    data[1000:1010] = bytes(byte ^ 255 for byte in data[1000:1010])
    records.write_bytes(data)
    open_dataset(DataConfig(path=str(out), batch=1, length=8))  # sizes are right
    assert main(["prepare", str(out), "--verify"]) == 2
    message = capsys.readouterr().err
    assert f"{records} does not have the checksum" in message and "run the same" in message
    assert prepare(out, *text) == 0
    assert content(out) == before and kept.stat().st_mtime_ns == stamp
    assert main(["prepare", str(out), "--verify"]) == 0
    assert "is what its manifest says (2 shards)" in capsys.readouterr().out


def test_missing_and_short_shards_are_told_before_training(lines, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(out, "--input", lines, "--jsonl", "text") == 0
    (records,) = out.glob("train-*/**/*array_record*")
    whole = records.read_bytes()
    config = DataConfig(path=str(out), batch=1, length=8)
    records.write_bytes(whole[:-65536])
    with pytest.raises(ValueError, match=f"{re.escape(str(records))} has .* bytes instead of"):
        open_dataset(config)
    records.unlink()
    with pytest.raises(ValueError, match="is missing.*\n.*same hope prepare --beam command"):
        open_dataset(config)
    (out / "tokenizer_byte.json").write_text('{"type": "byte", "end": true}\n')
    with pytest.raises(ValueError, match="the tokenizer is"):
        verify(out)


def test_other_input_or_options_are_refused(lines, tmp_path, capsys):
    out = tmp_path / "out"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a.json").write_text('{"text": "one", "title": "two"}\n' * 200)
    text = ["--input", mine, "--jsonl", "text"]
    assert prepare(out, *text) == 0
    before = content(out)
    for change, message in [
        (["--jsonl", "title"], "jsonl: 'text' -> 'title'"),
        (["--validation", "0.5"], "held-out fraction: 0.1 -> 0.5"),
        (["--tokenizer", "byte+end"], "tokenizer: 'byte' -> 'byte+end'"),
        (["--shard-mb", "1"], "bytes of a shard: 256000000 -> 1000000"),
        (["--input", lines], "input: 1 files -> 4"),
    ]:
        assert prepare(out, *text, *change) == 2
        told = capsys.readouterr().err
        assert message in told and "--force" in told
    (mine / "b.json").write_text('{"text": "three"}\n')
    assert prepare(out, *text) == 2
    assert "b.json new" in capsys.readouterr().err
    (mine / "b.json").unlink()
    (mine / "a.json").write_text('{"text": "two", "title": "two"}\n' * 200)
    os.utime(mine / "a.json", (1, 1))
    assert prepare(out, *text) == 2
    assert "a.json has changed" in capsys.readouterr().err
    assert content(out) == before
    assert prepare(out, *text, "--force") == 0
    assert b"two" in bytes(stream(out)[0].astype(np.uint8))


def test_only_input_within_the_folder_is_refused(tmp_path, capsys):
    """Not that of a folder whose name goes on where this one ends."""
    text = tmp_path / "c4-raw" / "a.txt"
    text.parent.mkdir()
    text.write_text("To be, or not to be. " * 99)
    held_out = ["--validation-input", text]
    assert prepare(tmp_path / "c4", "--input", text, *held_out) == 0
    for folder in (text.parent, text):
        assert prepare(folder, "--input", text) == 2
        assert "a.txt, which is input" in capsys.readouterr().err


def test_foreign_folders_are_safe(lines, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("irreplaceable")
    for force in ([], ["--force"]):
        assert prepare(tmp_path / "mine", "--input", lines, "--jsonl", "text", *force) == 2
        assert "is not prepared data" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    one = tmp_path / "one"
    assert main(["prepare", str(one), "--input", str(lines), "--jsonl", "text"]) == 0
    assert prepare(one, "--input", lines, "--jsonl", "text") == 2
    assert "use --force" in capsys.readouterr().err
    assert prepare(one, "--input", lines, "--jsonl", "text", "--force") == 0
    assert main(["prepare", str(one), "--verify"]) == 0


@pytest.mark.parametrize("beam", [HERE, pytest.param(WORKERS, marks=pytest.mark.slow)])
def test_a_mistake_in_the_text_is_told_with_its_place(beam, tmp_path, capsys):
    text = tmp_path / "a.json"
    text.write_text('{"text": "fine"}\n{"body": "where"}\n')
    assert prepare(tmp_path / "out", "--input", text, "--jsonl", "text", beam=beam) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == (
        f"hope prepare: error: {text}: line at byte 17 has no text in field 'text'; it has "
        "['body']"
    )
    text.write_text('{"text": "mended"}\n' * 9)  # nothing was finished, so it may change
    assert prepare(tmp_path / "out", "--input", text, "--jsonl", "text") == 0


def test_a_runner_that_gave_up_is_no_mistake(lines, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hope_jax.data.beam.pipeline._run", lambda *args: None)
    assert prepare(tmp_path / "out", "--input", lines, "--jsonl", "text") == 70
    assert "shards are missing" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--beam"], "--beam needs --input"),
        (["--beam", "--tfds", "x"], "without --beam"),
        (["--beam", "--input", "no-such-file"], "no-such-file does not exist"),
        (["--beam", "--input", "no-such-*"], "no file matches"),
        (["--beam", "--input", ".", "--jsonl", "a", "--separator=b"], "exclude each other"),
        (["--beam", "--input", ".", "--shard-mb", "0"], "use at least 1"),
        (["--runner", "FlinkRunner"], "--runner belongs to --beam"),
        (["--input", ".", "--", "--project=x"], "what follows -- belongs to --beam"),
        (["--verify", "--beam"], "takes no other option"),
        (["--verify"], "is not prepared data"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments, message, tmp_path, capsys):
    assert main(["prepare", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_is_learnt_once_from_the_training_text(lines, held_out, tmp_path, capsys):
    text = ["--input", lines, "--validation-input", held_out, "--jsonl", "text"]
    text += ["--tokenizer", "sentencepiece", "--vocab-size", "400"]
    assert main(["prepare", str(tmp_path / "one"), *map(str, text)]) == 0
    out = tmp_path / "out"
    assert prepare(out, *text) == 0
    assert_same_stream(tmp_path / "one", out)
    learnt = out / "tokenizer.model"
    assert learnt.read_bytes() == (tmp_path / "one" / "tokenizer.model").read_bytes()
    stamp = learnt.stat().st_mtime_ns
    assert prepare(out, *text) == 0
    assert learnt.stat().st_mtime_ns == stamp
    assert prepare(out, *text[:-1], "500") == 2
    assert "'sentencepiece 400' -> 'sentencepiece 500'" in capsys.readouterr().err


_KILLED = """
import os, signal, sys, threading
from hope_jax.cli.main import main
from hope_jax.data.beam import shards
write, done = shards.write_shard, []
def slow(path, records, dtype):
    write(path, records, dtype)
    done.append(path)
    if len(done) == 3:
        print("third", flush=True)
        threading.Event().wait()  # in the middle of the third shard, its file half named
shards.write_shard = slow
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tmp_path, capsys):
    texts = tmp_path / "texts"
    texts.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        (texts / f"{number}.bin").write_bytes(rng.bytes(1_100_000))
    command = ["prepare", "OUT", "--beam", "--input", str(texts), "--validation", "0"]
    command += ["--shard-mb", "1", "--", *HERE]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    script = [sys.executable, "-c", _KILLED, *[w.replace("OUT", str(killed)) for w in command]]
    process = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "third\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert len(list(killed.glob("shards/*.json"))) == 2
    assert len(list(killed.glob("unfinished/*"))) == 1
    with pytest.raises(ValueError, match="is not finished.*run the same command"):
        open_dataset(DataConfig(path=str(killed), batch=1, length=8))
    finished = {path: path.stat().st_mtime_ns for path in killed.rglob("*-of-00005*")}
    assert len(finished) == 4  # two shards and their manifests
    time.sleep(0.01)
    assert main([w.replace("OUT", str(killed)) for w in command]) == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not (killed / "unfinished").exists()
    assert main([w.replace("OUT", str(whole)) for w in command]) == 0
    assert content(killed) == content(whole)


class Elsewhere(LocalFileSystem):
    """A store that is reached by URLs alone, as gs:// is: elsewhere://x is a file in ROOT."""

    ROOT = None

    @classmethod
    def scheme(cls):
        return "elsewhere"

    def _place(self, url):
        assert url.startswith("elsewhere://"), url
        return str(self.ROOT / url.removeprefix("elsewhere://"))

    def join(self, base, *parts):
        return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])

    def has_dirs(self):
        return False

    def _list(self, prefix):
        root = self._place(prefix)
        for entry in LocalFileSystem._list(LocalFileSystem(None), root):
            url = "elsewhere://" + str(pathlib.Path(entry.path).relative_to(self.ROOT))
            yield FileMetadata(url, entry.size_in_bytes, entry.last_updated_in_seconds)

    def exists(self, url):
        return os.path.isfile(self._place(url))

    def size(self, url):
        return os.path.getsize(self._place(url))

    def last_updated(self, url):
        return os.path.getmtime(self._place(url))

    def metadata(self, url):
        return FileMetadata(url, self.size(url), self.last_updated(url))

    def open(self, path, *args, **kwargs):
        return super().open(self._place(path), *args, **kwargs)

    def create(self, path, *args, **kwargs):
        return super().create(self._place(path), *args, **kwargs)

    def rename(self, sources, targets):
        for target in targets:
            pathlib.Path(self._place(target)).parent.mkdir(parents=True, exist_ok=True)
        super().rename([*map(self._place, sources)], [*map(self._place, targets)])

    def delete(self, paths):
        LocalFileSystem(None).delete([*map(self._place, paths)])


@pytest.mark.parametrize("form", ["--jsonl=text", "--separator=%%", "--pattern=*"])
def test_input_and_output_may_be_urls(form, lines, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Elsewhere, "ROOT", tmp_path)
    (tmp_path / "in").mkdir()
    for path in lines.iterdir():
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "in" / "note.txt").write_bytes(b"one\n%%\ntwo\n")
    pattern = "*.txt" if form == "--separator=%%" else "*.json*"
    options = [form, "--validation", "0"]
    local = ["--input", f"{tmp_path}/in/{pattern}", *options]
    assert prepare(tmp_path / "here", *local) == 0
    there = ["--input", f"elsewhere://in/{pattern}", *options]
    for force in ([], [], ["--force"]):  # new, verified, anew
        assert prepare("elsewhere://there", *there, *force) == 0
        assert_same_stream(tmp_path / "here", tmp_path / "there", ["train"])
    assert list((tmp_path / "there").glob("unfinished/*")) == []
    assert list(pathlib.Path.cwd().glob("elsewhere:*")) == []


def test_training_reads_the_result(lines, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(out, "--input", lines, "--jsonl", "text", "--validation", "0.3") == 0
    root = pathlib.Path(__file__).parents[2]
    command = ["train", "--config", str(root / "experiments/quickstart.py"), "--workdir"]
    command += [str(tmp_path / "run"), "--set", f"data.path={out}", "--set", "steps=2"]
    small = ("data.batch=8", "data.length=32", "model.depth=1", "model.dim=32", "ngrams=False")
    quick = (
        "model.mixer=attention",
        "sample_tokens=0",
        "position_plot=False",
        "eval_batches=1",
    )
    for field in (*small, *quick):
        command += ["--set", field]
    assert main(command) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 2 and summary["held_out"]["loss"] < 6
