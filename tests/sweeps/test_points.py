"""Points of a sweep: from an experiment file to configurations with names."""

import pytest

from hope_jax.config.sweeps import changed, grid, load_sweep, point_name

FILE = """
from hope_jax.config import TrainConfig, ModelConfig, grid

def get_config(variant="small"):
    return TrainConfig(model=ModelConfig(dim={"small": 16, "large": 32}[variant]))

def sweep(which="all"):
    if which == "none":
        return
    yield from grid({"variant": ["small", "large"], "optim.lr": [1e-3, 3e-3],
                     ("seed", "data.seed"): [0, 1]})
    if which == "twice":
        yield {"variant": "small", "optim.lr": 1e-3, "seed": 0, "data.seed": 0}
    if which == "wrong":
        yield {"optim.rate": 1.0}
    if which == "list":
        yield 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sizes.py"
    path.write_text(FILE)
    return str(path)


def test_points_are_configurations_with_names(file):
    points = load_sweep(file, ["steps=7"])
    assert len(points) == 8
    assert points[3].name == "small-lr_0.003-seed_1"
    config = points[7].config
    assert (config.model.dim, config.optim.lr, config.seed, config.data.seed) == (
        32,
        3e-3,
        1,
        1,
    )
    assert all(p.config.steps == 7 and p.config.name == p.name for p in points)


def test_sets_outlive_further_changes(file):
    sets = ["optim.b1=0.5", "steps=7"]
    point = load_sweep(file, sets)[0]
    seeded = changed(point, {"seed": 2})
    assert (seeded.config.optim.b1, seeded.config.steps, seeded.config.seed) == (0.5, 7, 2)
    assert seeded.name == seeded.config.name == "small-lr_0.001-seed_2-seed_0"
    tuned = changed(changed(point, {"optim.b1": 0.1}), {"seed": 2}).config
    assert (tuned.optim.b1, tuned.steps, tuned.seed) == (0.1, 7, 2)
    with pytest.raises(ValueError, match="b2"):
        changed(point, {"optim.b2": 1.5})


def test_changes_and_sets_are_checked_together(tmp_path):
    """Three heads do not divide the width of `get_config`, but that of the override."""
    text = """
import dataclasses
from hope_jax.config import TrainConfig

def get_config():
    return TrainConfig()

def sweep():
    yield {"model.mixer": "attention", "model.mixer.heads": 3}

def finish(config):
    return dataclasses.replace(config, steps=10 * config.model.dim)
"""
    (tmp_path / "heads.py").write_text(text)
    (point,) = load_sweep(str(tmp_path / "heads.py"), ["model.dim=48"])
    assert (point.config.model.dim, point.config.steps) == (48, 480)
    wider = changed(point, {"model.dim": 96})
    assert (wider.config.model.mixer.heads, wider.config.steps) == (3, 960)


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("twice", "two points of sweep.. are the same: .*'seed': 0"),
        ("wrong", "point 8 of sweep.*optim.rate.*: unknown field 'optim.rate'"),
        ("list", "point 8 of sweep.. is 3; give a dict"),
        ("none", "gives no point"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said(file, which, said):
    with pytest.raises(ValueError, match=said):
        load_sweep(f"{file}:{which}")


def test_a_set_of_what_the_sweep_varies_is_refused(file):
    """The names of its points would tell what they are not, and runs be counted as seeds."""
    said = (
        r"--set optim.lr=0.1: .* varies optim.lr between points, 0.001, 0.003, .* leave it out"
    )
    with pytest.raises(ValueError, match=said):
        load_sweep(file, ["optim.lr=0.1"])


def test_a_file_without_a_sweep(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("x = 1\n")
    with pytest.raises(ValueError, match="has no function sweep.*hope_jax.config.grid"):
        load_sweep(str(path))
    path.write_text("def sweep():\n    yield {}\n    1 / 0\n")
    with pytest.raises(ValueError, match="line 3: ZeroDivisionError"):
        load_sweep(str(path))


def test_a_sweep_in_a_folder_with_a_colon(tmp_path):
    folder = tmp_path / "12:30"
    folder.mkdir()
    (folder / "sizes.py").write_text(FILE)
    assert len(load_sweep(str(folder / "sizes.py"))) == 8


def test_names_are_short_and_tell_points_apart():
    many = {f"model.mixer.field_{i}": i for i in range(40)}
    names = {point_name(many), point_name(many | {"model.mixer.field_39": 40})}
    assert len(names) == 2 and all(len(name) <= 120 for name in names)
    assert point_name({}) == "base"
    assert "/" not in point_name({"data.path": "a/b c"})


def test_last_axis_is_fastest():
    points = [*grid({"a": [1, 2], "b": [3, 4]})]
    assert [tuple(p.values()) for p in points] == [(1, 3), (1, 4), (2, 3), (2, 4)]
