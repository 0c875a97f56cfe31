"""JSON lines, also packed, on one machine."""

import gzip
import json

import pytest

from hope_jax.data.sources import TextSource

TEXTS = ["one\n", "two", "", "drei \u00fc", "five"]


def test_packed_and_plain_lines_are_the_same_documents(tmp_path):
    data = "\n".join(json.dumps({"text": text, "id": 1}) for text in TEXTS)
    (tmp_path / "a.json").write_text(data)
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        file.write(data + "\n\n")
    for name in ("a.json", "a.json.gz"):
        source = TextSource([tmp_path / name], jsonl="text", validation=0)
        assert [d.data.decode() for d in source.documents("train")] == TEXTS
        assert source.size() == sum(len(text.encode()) for text in TEXTS)
        assert source.describe()["jsonl"] == "text"


@pytest.mark.parametrize(
    "line, message",
    [
        (b'{"text": 3}', "byte 14 has no text in field 'text'; it has \\['text'\\]"),
        (b'["text"]', "byte 14 has no text in field 'text'; it has list"),
        (b"{", "byte 14 is not JSON"),
        (b'{"text": "\xff"}', "byte 14 is not JSON"),
        (b'{"text": "\\ud800"}', "byte 14.*surrogates"),
    ],
)
def test_bad_lines_are_told_with_their_place(line, message, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"text": "a"}\n' + line + b"\n")
    with pytest.raises(ValueError, match=f"a.json: line at {message}"):
        TextSource([path], jsonl="text").size()


@pytest.mark.parametrize("cut", [5, -3])
def test_a_broken_archive_is_told(cut, tmp_path):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n' * 9)[:cut])
    with pytest.raises(ValueError, match="a.json.gz cannot be read"):
        TextSource([path], jsonl="text").size()
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="a.json.gz cannot be read"):
        TextSource([path], jsonl="text").size()
