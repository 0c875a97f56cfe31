"""The comparisons that ship: every point fits, and all of one budget are of one size."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from hope_jax.config import MIXER_CONFIGS
from hope_jax.config.load import load_config
from hope_jax.config.sweeps import load_sweep
from hope_jax.data import open_dataset
from hope_jax.models import count_params
from hope_jax.sweeps import rows_of
from hope_jax.training import tests_of_task

# of many points, for each of which a width is solved for
LARGE = ("equal_budget", "formal", "mad", "needles", "open_questions", "wikitext")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def sweeps():
    wanted = ("def get_config(", "def sweep(")
    for path in sorted(EXPERIMENTS.rglob("*.py")):
        if all(name in path.read_text() for name in wanted):
            marks = [pytest.mark.slow] if path.stem in LARGE else []
            yield pytest.param(path, id=path.stem, marks=marks)


def tasks_of(points):
    """The tasks that points train on and are tested with, each once."""
    found = {}
    for config in (point.config for point in points if point.config.data.task is not None):
        for data in (config.data, *tests_of_task.tests_of(config).values()):
            one = dataclasses.replace(data, batch=1)
            found[repr(one)] = one
    return found.values()


@pytest.mark.parametrize("path", [*sweeps()])
def test_every_point_fits(path):
    """Also to be tuned, where a learning rate is swept."""
    points = load_sweep(str(path))
    for data in tasks_of(points):
        for split in ("train", "validation"):
            next(iter(open_dataset(data, split=split)))
    if "optim.lr" in points[0].changes:
        assert all(len(row.points) >= 3 for row in rows_of(points, "optim.lr"))


@pytest.mark.parametrize("suffix", ["", pytest.param("-4k", marks=pytest.mark.slow)])
def test_every_mixer_is_compared_at_one_size(suffix):
    recipe = runpy.run_path(str(EXPERIMENTS / "language_modelling" / "equal_budget.py"))
    configs = {name: recipe["get_config"](name + suffix) for name in recipe["MIXERS"]}
    models = {name: recipe["finish"](config).model for name, config in configs.items()}
    assert {model.mixer.type for model in models.values()} == set(MIXER_CONFIGS)
    target = recipe["PARAMETERS"]
    if suffix:
        target += (4096 - 256) * recipe["WIDTH"]
    for name, model in models.items():
        assert abs(count_params(model).total - target) <= 0.01 * target, name


def test_a_recipe_of_one_budget_keeps_to_it_under_overrides():
    """A smaller mixer leaves more to the feed-forward part, unless that is named."""
    path = f"{EXPERIMENTS / 'language_modelling' / 'equal_budget.py'}:hope"
    linear = ["model.mixer.memory=linear"]
    assert abs(count_params(load_config(path, linear).model).total - 1e6) <= 1e4
    assert load_config(path, [*linear, "model.cms.hidden=96"]).model.cms.hidden == 96
