"""`hope train`: what is wrong on the command line is said before anything starts."""

import pytest

from hope_jax.cli import main as cli
from hope_jax.cli import train
from hope_jax.training.lock import locked

QUICK = "from hope_jax.config import TrainConfig\ndef get_config():\n    return TrainConfig()\n"


def test_help_of_the_table_is_that_of_the_module():
    assert cli.COMMANDS["train"] == train.HELP


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "nowhere.py"], "nowhere.py"),
        (["--config", "quick.py", "--set", "optim.lrr=1"], "did you mean 'lr'?"),
        (["--config", "quick.py", "--set", "steps"], "not of the form name=value"),
        (["--config", "quick.py", "--set", "steps=0"], "steps is 0; use at least 1"),
    ],
)
def test_mistakes_are_one_message(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.py").write_text(QUICK)
    assert cli.main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_a_folder_in_use_is_one_message_and_a_status_to_try_again(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.py").write_text(QUICK)
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        assert cli.main(["train", "--config", "quick.py", "--workdir", "run"]) == 75
    assert capsys.readouterr().err == (
        "hope train: error: another process is training in run; wait for it, or use another "
        "--workdir\n"
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
