"""The folder of a run knows its configuration."""

import json
import subprocess
import sys

import pytest

from hope_jax.config import TrainConfig, override, to_dict
from hope_jax.errors import Busy
from hope_jax.training import lock
from hope_jax.training.lock import handing_on, locked
from hope_jax.training.workdir import (
    CHECKPOINTS,
    CONFIG,
    HARMLESS,
    SUMMARY,
    claim,
    differences,
    reopen,
)


def test_only_what_matters_counts_as_a_difference():
    old = to_dict(TrainConfig())
    harmless = {"steps": 7, "log_every": 3, "name": "x", "data.workers": 2}
    assert differences(old, to_dict(override(TrainConfig(), harmless))) == []
    new = to_dict(override(TrainConfig(), {"model.mixer": "attention", "optim.clip": None}))
    fields = [field for field, _, _ in differences(old, new)]
    assert "optim.clip" in fields and "model.mixer.type" in fields


def test_every_harmless_field_exists():
    fields = to_dict(TrainConfig())
    for name in HARMLESS:
        *parents, last = name.split(".")
        group = fields
        for parent in parents:
            group = group[parent]
        assert last in group


def test_claim_writes_the_configuration_and_refuses_what_it_cannot_read(tmp_path):
    run = tmp_path / "a" / "b"
    with claim(run, TrainConfig()):
        pass
    with claim(run, TrainConfig()):  # the lock is gone with the first
        pass
    for text, said in (("{", "is not JSON"), ("[]", "is not a configuration")):
        (run / CONFIG).write_text(text)
        with pytest.raises(ValueError, match=said), claim(run, TrainConfig()):
            pass


CHILD = """
import pathlib, runpy, sys
locked = runpy.run_path(sys.argv[1])["locked"]  # without the package, which takes seconds
for folder in sys.argv[2:]:
    with locked(pathlib.Path(folder)):
        print("mine", flush=True)
sys.stdin.read()
"""


def test_a_lock_that_was_handed_on_lasts_as_long_as_the_child(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    with locked(folders[0]) as one, locked(folders[1]) as other:
        with pytest.raises(Busy, match=f"another process is training in {folders[0]}; wait"):
            with locked(folders[0]):
                pass
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, lock.__file__, *map(str, folders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **handing_on([one, other]),
        )
        assert [child.stdout.readline() for _ in folders] == [b"mine\n"] * 2
    for folder in folders:  # although the parent has let go of it
        with pytest.raises(Busy), claim(folder, TrainConfig()):
            pass
    child.communicate()
    with claim(folders[1], TrainConfig()):
        pass


def test_a_lock_that_was_for_another_process_opens_nothing(tmp_path, monkeypatch):
    with locked(tmp_path) as held:
        others = set(range(256)) - {held.fileno()}  # one will be open on this very file
        monkeypatch.setenv(lock.HANDED_ON, ",".join(map(str, others)))
        with pytest.raises(Busy), locked(tmp_path):
            pass


def test_a_run_without_a_checkpoint_gives_way(tmp_path):
    """As after a wrong data.path: the mended command must not be refused."""
    wrong, right = (override(TrainConfig(), {"data.path": path}) for path in ("/a", "/b"))
    with claim(tmp_path, wrong):
        pass
    with claim(tmp_path, right):
        assert json.loads((tmp_path / CONFIG).read_text()) == to_dict(right)
    (tmp_path / CHECKPOINTS / "8").mkdir(parents=True)
    with pytest.raises(ValueError, match="'/b' -> '/a'"), claim(tmp_path, wrong):
        pass
    assert json.loads((tmp_path / CONFIG).read_text()) == to_dict(right)


def test_results_without_checkpoints_are_not_given_away(tmp_path):
    """As a sweep leaves them that discards the checkpoints of finished runs."""
    with claim(tmp_path, TrainConfig()):
        (tmp_path / SUMMARY).write_text("{}")
    other = override(TrainConfig(), {"seed": 7})
    with pytest.raises(ValueError, match="seed: 0 -> 7"), claim(tmp_path, other):
        pass
    reopen(tmp_path)
    with claim(tmp_path, other):
        reopen(tmp_path)  # may be gone


def test_a_run_that_is_further_than_steps_is_refused_and_left_as_it_was(tmp_path):
    """Its last checkpoint would stand for a run of fewer steps."""
    steps = lambda n: override(TrainConfig(), {"steps": n})
    with claim(tmp_path, steps(9)):
        for step in (4, 8, 9):
            (tmp_path / CHECKPOINTS / str(step)).mkdir(parents=True)
    before = (tmp_path / CONFIG).read_text()
    for fewer, older in ((4, 4), (7, 4), (8, 8), (3, None)):
        with pytest.raises(ValueError) as refused, claim(tmp_path, steps(fewer)):
            pass
        said = str(refused.value)
        assert f"is at step 9, and steps is {fewer};" in said
        assert (f"{tmp_path}/checkpoints/{older}" in said) == (older is not None)
        assert older is not None or "checkpoints/" not in said
        assert (tmp_path / CONFIG).read_text() == before
    for enough in (9, 10):
        with claim(tmp_path, steps(enough)):
            pass


def test_a_folder_that_is_a_checkpoint_is_no_work_folder(tmp_path):
    """What was exported would be hidden behind `checkpoints/`."""
    (tmp_path / "exported" / "9" / "contents").mkdir(parents=True)
    (tmp_path / "exported" / "tokenizer.json").write_text("{}")
    for folder in (tmp_path / "exported", tmp_path / "exported" / "9"):
        before = sorted(folder.iterdir())
        with pytest.raises(ValueError) as refused, claim(folder, TrainConfig()):
            pass
        assert f"--set start={folder} and another --workdir" in str(refused.value)
        assert sorted(folder.iterdir()) == before
    (tmp_path / "runs" / "2024").mkdir(parents=True)  # a number, and no checkpoint
    with claim(tmp_path / "runs", TrainConfig()):
        pass


def test_a_field_that_is_new_since_the_run_began_is_no_change(tmp_path):
    (tmp_path / CHECKPOINTS / "8").mkdir(parents=True)
    old = to_dict(TrainConfig())
    del old["model"]["vocab_multiple"]
    (tmp_path / CONFIG).write_text(json.dumps(old))
    with claim(tmp_path, TrainConfig()):
        pass
    (tmp_path / CONFIG).write_text(json.dumps(old))
    changed = override(TrainConfig(), {"model.vocab_multiple": 128})
    with pytest.raises(ValueError, match="vocab_multiple: 1 -> 128"), claim(tmp_path, changed):
        pass
