"""The command `hope prepare`."""

import pathlib
import shlex

import pytest

from hope_jax.cli.main import main
from hope_jax.config import DataConfig
from hope_jax.data import corpus, open_dataset


def test_folder_of_texts(texts, tmp_path, capsys):
    out = tmp_path / "my data"
    command = ["prepare", str(out), "--input", str(texts), "--validation", "0.2"]
    assert main([*command, "--tokenizer", "byte+end"]) == 0
    printed = capsys.readouterr()
    assert "vocabulary 257" in printed.out
    assert f"data.path={out}" in shlex.split(printed.out.splitlines()[-1])
    assert "prepare: 100%" in printed.err
    assert main(command) == 2
    assert "use --force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert open_dataset(DataConfig(path=str(out), batch=2, length=16)).vocab_size == 256


def test_sentencepiece_of_one_file(tmp_path, capsys):
    play = tmp_path / "play.txt"
    play.write_bytes(corpus.documents("validation")[0].data)
    out = tmp_path / "out"
    command = ["prepare", str(out), "--input", str(play), "--tokenizer", "sentencepiece"]
    assert main([*command, "--vocab-size", "500"]) == 0
    dataset = open_dataset(DataConfig(path=str(out), batch=2, length=16))
    assert dataset.vocab_size == 500 and dataset.bytes_per_token > 1.5
    assert play.read_bytes().startswith(dataset.tokenizer.decode(dataset.tokens()))
    assert "model.vocab_size=500" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--input", "no-such-file"], "no-such-file does not exist"),
        (["--input", ".", "--tfds", "."], "exclude each other"),
        (["--separator=--"], "--separator belongs to --input"),
        (["--split", "train"], "--split belongs to --tfds"),
        (["--validation", "0.3"], "fixed split"),
        (["--validation-input", "x"], "--validation-input belongs to --input"),
        (["--input", ".", "--validation-input", ".", "--validation", "0.3"], "not needed"),
        (["--vocab-size", "500"], "belongs to --tokenizer sentencepiece"),
        (["--tokenizer", "sentencepiece", "--vocab-size", "0"], "use at least 300"),
        (["--tokenizer", "word"], "'word' is neither"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments, message, tmp_path, capsys):
    assert main(["prepare", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_output_inside_the_input_is_refused(texts, capsys):
    assert main(["prepare", str(texts / "out"), "--input", str(texts)]) == 2
    assert "is inside the input" in capsys.readouterr().err


def test_input_that_cannot_be_read_is_not_blamed_on_the_output(texts, tmp_path, capsys):
    hidden = sorted(texts.iterdir())[0]
    refuse = PermissionError(13, "Permission denied", str(hidden))
    whole = pathlib.Path.open

    def open_file(path, *args, **kwargs):
        if path == hidden:
            raise refuse
        return whole(path, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathlib.Path, "open", open_file)
        assert main(["prepare", str(tmp_path / "out"), "--input", str(texts)]) == 2
    assert f"error: {hidden} cannot be read: Permission denied" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
