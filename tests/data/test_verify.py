"""Checksums of prepared data, and places that are not on a disk."""

import shutil

import pytest

import hope_jax
from hope_jax.cli.main import main
from hope_jax.config import DataConfig, TrainConfig
from hope_jax.data import open_dataset
from hope_jax.training import train


def test_a_folder_of_one_machine_is_read_and_compared(prepared, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(prepared, folder)
    assert main(["prepare", str(folder), "--verify"]) == 0
    printed = capsys.readouterr()
    assert f"{folder} is what its manifest says" in printed.out
    assert "verify: 100%" in printed.err
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"sha256": "', '"sha256": "0'))
    assert main(["prepare", str(folder), "--verify"]) == 2
    assert "the records of split 'train' do not have" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        ["--force"],
        ["--separator", ""],
        ["--pattern", "*.md"],
        ["--validation", "0"],
        ["--validation-input", "x"],
        ["--split", "test"],
        ["--tokenizer", "byte"],
        ["--vocab-size", "512"],
        ["--shard-mb", "1"],
        ["--", "--project=x"],
    ],
)
def test_no_other_option_goes_with_it(prepared, option, capsys):
    assert main(["prepare", str(prepared), "--verify", *option]) == 2
    assert "it takes no other option" in capsys.readouterr().err


def test_damaged_records_are_found(prepared, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(prepared, folder)
    (records,) = folder.rglob("*train.array_record*")
    data = bytearray(records.read_bytes())
    data[1000:1010] = bytes(byte ^ 255 for byte in data[1000:1010])
    records.write_bytes(data)
    assert main(["prepare", str(folder), "--verify"]) == 2
    assert "prepare the data again" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["gs://bucket/data/c4", "s3://bucket/data/c4"])
def test_buckets_are_not_taken_for_folders(url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    advice = "gcsfuse --implicit-dirs bucket ~/bucket.*use ~/bucket/data/c4"
    match = advice if url.startswith("gs") else "mount it, or copy it"
    with pytest.raises(ValueError, match=f"data.path is {url}.*{match}"):
        open_dataset(DataConfig(path=url))
    with pytest.raises(ValueError, match=match):
        train(TrainConfig(), url)
    with pytest.raises(ValueError, match=match):
        hope_jax.load(url)
    for command in (["prepare", url], ["prepare", url, "--verify"]):
        assert main(command) == 2
        assert "is not on a mounted file system" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
