"""Compiled programs are kept where they may be, and no longer than there is room."""

import os
import subprocess
import sys

import pytest

from hope_jax.cli import programs

FOLDER = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No setting but a cache folder of the test's own; what is set is taken back."""
    monkeypatch.setenv("HOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(FOLDER, "set here, so that it is restored")
    monkeypatch.delenv(FOLDER)
    monkeypatch.delenv("JAX_ENABLE_COMPILATION_CACHE", raising=False)


def test_a_folder_for_this_kind_of_machine(tmp_path):
    programs.keep_programs("generate")
    folder = os.environ[FOLDER]
    assert os.path.dirname(folder) == str(tmp_path / "cache" / "programs")
    assert os.path.isdir(folder)


def test_another_processor_has_another_folder(monkeypatch):
    programs.keep_programs("train")
    first = os.environ.pop(FOLDER)
    monkeypatch.setattr(programs.platform, "machine", lambda: "another")
    programs.keep_programs("train")
    assert os.environ[FOLDER] != first


@pytest.mark.parametrize("command, alone", [("bench", True), ("aot", True), ("train", False)])
def test_nothing_where_it_would_mislead(command, alone):
    programs.keep_programs(command, alone=alone)
    assert FOLDER not in os.environ


def test_settings_of_the_user_hold(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "False")
    programs.keep_programs("train")
    assert FOLDER not in os.environ
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
    monkeypatch.setenv(FOLDER, "/elsewhere")
    programs.keep_programs("train")
    assert os.environ[FOLDER] == "/elsewhere"


def test_without_a_place_to_write_everything_else_works(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOPE_CACHE", str(tmp_path / "file"))
    programs.keep_programs("train")
    assert FOLDER not in os.environ


def test_what_was_not_used_for_longest_goes_first(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "LIMIT", 250)
    programs.keep_programs("train")
    folder = os.environ.pop(FOLDER)
    for age, name in enumerate(("new", "older", "oldest")):
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    programs.keep_programs("train")
    assert sorted(os.listdir(folder)) == ["new", "older"]


def test_the_second_command_compiles_nothing_again(tmp_path):
    """JAX reads the setting although it came after this package was imported."""
    code = (
        "import os, sys\n"
        "from hope_jax.cli.programs import keep_programs\n"
        "keep_programs('generate')\n"
        "import jax, jax.numpy as jnp\n"
        "hits = []\n"
        "jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))\n"
        "print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))[0, 0])\n"
        "print(sum(name.endswith('cache_hits') for name in hits))\n"
    )
    env = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    counts = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        counts.append(int(done.stdout.split()[-1]))
    assert counts[0] == 0 < counts[1]
