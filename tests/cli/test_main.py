"""The command line itself: fast help, lazy imports, clear errors."""

import os
import subprocess
import sys
import types

import pytest

import hope_jax
from hope_jax.cli import main as cli
from hope_jax.errors import Busy, GaveUp


def test_help_is_fast_and_imports_no_jax():
    code = (
        "import sys\n"
        "from hope_jax.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'jax', 'numpy', 'flax', 'orbax', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)
    after = os.times()
    user, system = (
        getattr(after, n) - getattr(before, n) for n in ("children_user", "children_system")
    )
    assert user + system < 1.0


def test_module_and_program_are_the_same():
    done = subprocess.run(
        [sys.executable, "-m", "hope_jax", "--version"], capture_output=True, text=True
    )
    assert done.stdout.strip() == f"hope_jax {hope_jax.__version__}"


@pytest.mark.parametrize("argv", [[], ["trian"], ["--nonsense"]])
def test_wrong_command_line_is_status_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert "hope" in capsys.readouterr().err


def _command(monkeypatch, run):
    """Put a subcommand that does `run` in the place of `hope train`."""
    module = types.ModuleType("hope_jax.cli.train", doc="for a test")
    module.add_arguments = lambda parser: parser.add_argument("--x")
    module.run = run
    monkeypatch.setitem(sys.modules, "hope_jax.cli.train", module)


def _raise(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("chunk 0; use at least 1"), 2, "chunk 0; use at least 1"),
        (FileNotFoundError(2, "No such file or directory", "a.py"), 2, "a.py: No such file"),
        (OSError("disk full"), 2, "disk full"),
        (Busy("wait for it"), 75, "wait for it"),
        (GaveUp("the compiler crashed"), 70, "the compiler crashed"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_user_errors_are_one_message(monkeypatch, capsys, error, status, said):
    _command(monkeypatch, _raise(error))
    assert cli.main(["train"]) == status
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_traceback_on_request(monkeypatch):
    _command(monkeypatch, _raise(ValueError("bad")))
    monkeypatch.setenv("HOPE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="bad"):
        cli.main(["train"])


def test_status_and_arguments_pass_through(monkeypatch):
    seen = []
    _command(monkeypatch, lambda args: seen.append(args.x))
    assert cli.main(["train", "--x", "5"]) == 0
    assert seen == ["5"]
