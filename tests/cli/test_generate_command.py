"""hope generate: from a checkpoint to text in the terminal, and on from what was kept."""

import os
import subprocess
import sys

import jax
import pytest

from hope_jax.checkpoint import CheckpointManager, Snapshot
from hope_jax.cli.main import main
from hope_jax.config import AttentionConfig, ModelConfig, TrainConfig
from hope_jax.data import ByteTokenizer
from hope_jax.data.tokenizers.protocol import as_text
from hope_jax.models import init_params
from hope_jax.training.identity import describe_run


def make_run(folder, seed):
    """Folder of a run with the checkpoint of an untrained model."""
    model = ModelConfig(dim=8, depth=1, mixer=AttentionConfig(heads=1), init_std=0.5)
    config = TrainConfig(model=model)
    params = init_params(model, jax.random.key(seed))
    run = describe_run(config, ByteTokenizer())
    checkpoints = CheckpointManager(folder / "checkpoints")
    checkpoints.save(Snapshot(1, params, {}, {}, {}, run))
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), seed=0)


def generate(workdir, *options):
    return main(["generate", "--workdir", str(workdir), "--tokens", "12", *map(str, options)])


def test_prompt_and_text_are_printed(workdir, capsys):
    texts = []
    for seed in (1, 1, 2):
        assert generate(workdir, "--prompt", "To be", "--seed", seed, "--top-k", 50) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("To be") and text.endswith("\n") for text in texts)


def test_going_on_from_what_was_kept(workdir, tmp_path, capsys):
    """Two calls with a state between them write what one call writes."""
    greedy = ("--temperature", 0)
    assert generate(workdir, "--prompt", "To be", *greedy, "--state-out", tmp_path / "s") == 0
    first = capsys.readouterr()
    assert "state kept in" in first.err
    assert generate(workdir, *greedy, "--state-in", tmp_path / "s") == 0
    second = capsys.readouterr().out
    assert generate(workdir, "--prompt", "To be", *greedy, "--tokens", 24) == 0
    assert capsys.readouterr().out == first.out[:-1] + second


def test_what_another_run_kept_is_refused(workdir, tmp_path, capsys):
    other, kept = make_run(tmp_path / "run", seed=1), tmp_path / "s"
    assert generate(other, "--prompt", "To be", "--state-out", kept) == 0
    assert generate(workdir, "--state-in", kept) == 2
    assert "weights differ" in capsys.readouterr().err


def test_a_terminal_that_does_not_know_all_characters(workdir):
    """Text is bytes to the model; what cannot be shown must not end the program."""
    command = [sys.executable, "-m", "hope_jax", "generate", "--workdir", str(workdir)]
    done = subprocess.run(
        [*command, "--prompt", "Wär's", "--tokens", "1"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("W?r's")


def test_prompt_from_a_file(workdir, tmp_path, capsys):
    (tmp_path / "prompt").write_bytes("Wär's\r\n".encode())
    assert generate(workdir, "--prompt-file", tmp_path / "prompt") == 0
    assert capsys.readouterr().out.startswith("Wär's\r\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            (),
            "nothing to go on from; give --prompt TEXT, --prompt-file FILE or --state-in FILE",
        ),
        (("--prompt", "a", "--prompt-file", "b"), "use one of them"),
        (("--prompt", "a", "--top-p", "2"), "top_p is 2.0"),
        (("--prompt", "a", "--seed", 2**70), "use 0 to 4294967295"),
        (("--prompt", "a", "--state-out", "/nowhere/s"), "/nowhere/s does not exist"),
        (("--prompt", "a", "--state-out", "/"), "/ is a folder"),
        (("--prompt", "a", "--state-in", "/nowhere/s"), "/nowhere/s: No such file"),
    ],
)
def test_mistakes_are_one_message(workdir, capsys, options, said):
    assert generate(workdir, *options) == 2
    out, err = capsys.readouterr()
    assert said in err and out == ""


def test_extreme_numbers_write_text(workdir, capsys):
    greedy = ("--prompt", "a", "--temperature")
    assert generate(workdir, *greedy, 1e-40) == generate(workdir, *greedy, 0) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]
    assert generate(workdir, *greedy, 1e39, "--top-k", 99999999999) == 0


def test_a_prompt_that_the_tokenizer_cannot_read_names_its_file(tmp_path, monkeypatch, capsys):
    """Bytes that are not UTF-8, with a tokenizer that needs it."""
    workdir, file = make_run(tmp_path / "run", seed=0), tmp_path / "latin.txt"
    monkeypatch.setattr(ByteTokenizer, "encode", lambda self, text: as_text(text))
    file.write_bytes("Wär's".encode("latin-1"))
    assert generate(workdir, "--prompt-file", file) == 2
    out, err = capsys.readouterr()
    assert f"{file} is not UTF-8 text" in err and "at byte 1" in err and out == ""


def test_no_run_there(tmp_path, capsys):
    assert generate(tmp_path / "none", "--prompt", "a") == 2
    assert "there is no run" in capsys.readouterr().err
