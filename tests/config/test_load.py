"""Configurations from experiment files."""

import pytest

from hope_jax.config import ModelConfig, TrainConfig, to_json
from hope_jax.config.load import load_config

GOOD = """
from hope_jax.config import ModelConfig, TrainConfig

def get_config(depth="3"):
    return TrainConfig(model=ModelConfig(depth=int(depth)))
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="experiment.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_get_config_is_run_and_overridden(write):
    config = load_config(write(GOOD), ["model.dim=64", "optim.lr=1e-2"])
    assert (config.model.depth, config.model.dim, config.optim.lr) == (3, 64, 0.01)


def test_a_variant_is_the_argument(write):
    assert load_config(f"{write(GOOD)}:5").model.depth == 5


def test_a_colon_may_belong_to_the_name_of_the_file(write, tmp_path):
    (tmp_path / "12:30").mkdir()
    path = write(GOOD, "12:30/mine.py")
    assert load_config(path).model.depth == 3


def test_a_name_is_looked_up_in_experiments(write, tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    write(GOOD, "experiments/mine.py")
    monkeypatch.chdir(tmp_path)
    assert load_config("mine:2").model.depth == 2


def test_the_json_of_a_run_is_read(write):
    config = TrainConfig(model=ModelConfig(depth=7))
    assert load_config(write(to_json(config), "config.json")) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"has no function get_config"),
        ("import math\n\ndef get_config(:\n", r"line 3: SyntaxError"),
        ("x = 1\ny = x / 0", r"line 2: ZeroDivisionError"),
        ("def get_config():\n    return missing", r"line 2: NameError.*missing"),
        ("def get_config():\n    return {}", r"returned dict; return a TrainConfig"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(write, text, message):
    with pytest.raises(ValueError, match=message):
        load_config(write(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 column 2"),
        ("[]", "no TrainConfig"),
        ('{"model": {"dmi": 3}}', "did you mean 'dim'"),
        ('{"model": 3}', "'model' is a group of fields"),
        ('{"model": {"mixer": 3}}', "mixer type 3; choose one of"),
        ('{"model": {"mixer": {"type": []}}}', "mixer type .*; choose one of"),
    ],
)
def test_what_is_wrong_with_a_json_file_is_said_with_its_name(write, text, message):
    with pytest.raises(ValueError, match=rf"mine\.json: .*{message}"):
        load_config(write(text, "mine.json"))


def test_a_json_file_that_is_not_text(tmp_path):
    (tmp_path / "mine.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"mine\.json: .*utf-8"):
        load_config(tmp_path / "mine.json")


@pytest.mark.parametrize(
    "value", ["{[]:1}", "", "nan", "1+", "'3'", "True", "(1,2)", "(" * 999]
)
def test_values_that_are_no_number_are_named(write, value):
    with pytest.raises(ValueError, match="model.depth=.*not a value of type int"):
        load_config(write(GOOD), [f"model.depth={value}"])


def test_a_missing_file_and_a_variant_too_many(write, tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*nothing\.py"):
        load_config(tmp_path / "nothing.py")
    path = write(
        "from hope_jax.config import TrainConfig\ndef get_config(): return TrainConfig()"
    )
    with pytest.raises(ValueError, match="leave out 'large'"):
        load_config(f"{path}:large")


def test_finish_comes_after_overrides(write):
    text = """
import dataclasses
from hope_jax.config import ModelConfig, TrainConfig

def get_config():
    return TrainConfig(model=ModelConfig(dim=64))

def finish(config):
    return dataclasses.replace(config, steps=10 * config.model.depth)
"""
    assert load_config(write(text), ["model.depth=7"]).steps == 70
    broken = text.replace("return dataclasses.replace", "dataclasses.replace")
    with pytest.raises(ValueError, match=r"finish\(\) of .* returned NoneType"):
        load_config(write(broken))
