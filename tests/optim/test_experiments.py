"""The experiments on forgetting and on the toy problem measure what they say."""

import functools
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "optimizers"


@pytest.fixture(scope="module")
def forgetting():
    return SimpleNamespace(**runpy.run_path(str(EXPERIMENTS / "forgetting.py")))


@pytest.fixture(scope="module")
def toy():
    return SimpleNamespace(**runpy.run_path(str(EXPERIMENTS / "toy.py")))


@pytest.fixture(scope="module")
def drawn(forgetting):
    """Two seeds of a problem with one matrix."""
    one = functools.partial(forgetting.draw, forgetting.PROBLEMS["narrow"], 60)
    return jax.jit(jax.vmap(one))(jnp.arange(2))


def measured(forgetting, rule, drawn, rate):
    rule = forgetting.RULES[rule]
    run = forgetting.trainer(rule, every=5)
    found = forgetting.experiment(rule, run, rate, drawn)
    return {k: np.asarray(v) for k, v in found.items()}


@pytest.mark.parametrize("problem", ["narrow", "mlp"])
def test_gradients_of_the_tasks_are_orthogonal(forgetting, problem):
    tasks, params, batches = forgetting.draw(forgetting.PROBLEMS[problem], 3, jnp.asarray(0))
    grad = jax.grad(forgetting.loss_of, has_aux=True)
    a, b = (grad(params, x["x"][0], x["t"][0])[0]["w"] for x in batches)
    length = lambda g: float(jnp.linalg.norm(g))
    assert length(a.T @ b) < 1e-5 * length(a) * length(b)
    assert length(tasks.basis[0].T @ a) > 0.999 * length(a)
    assert length(tasks.basis[0].T @ b) < 1e-5 * length(b)
    # No axis belongs to one task, or element-wise rules would keep to the subspace.
    assert float(jnp.abs(tasks.basis).max()) < 0.95


def test_targets_are_normalised_and_noise_is_left_out_of_the_loss(forgetting, drawn):
    tasks, start, _ = drawn
    for which in (0, 1):
        for seed in (0, 1):
            x, t = tasks.x[seed, which], tasks.t[seed, which]
            zero = jax.tree.map(lambda w: w[0] * 0, start)
            assert float(forgetting.loss_of(zero, x, t)[0]) == pytest.approx(1, rel=1e-5)


def test_gradient_descent_forgets_nothing_and_momentum_something(forgetting, drawn):
    plain = measured(forgetting, "SGD", drawn, 2**-4)
    heavy = measured(forgetting, "momentum 0.9", drawn, 2**-6)
    change = lambda found: np.abs(found["a_after"] - found["a_before"])
    assert (change(plain) < 1e-6).all() and (plain["share"] < 1e-5).all()
    assert (change(heavy) > 1e-4).all() and (heavy["share"] > 1e-2).all()
    for found in (plain, heavy):
        assert (found["a_before"] < 0.5 * found["a_initial"]).all()
        assert (found["b_after"] < 0.5).all()


def test_what_momentum_forgets_was_left_over_at_the_switch(forgetting, drawn):
    heavy = measured(forgetting, "momentum 0.9", drawn, 2**-6)
    assert (np.abs(heavy["a_after_fresh"] - heavy["a_before"]) < 1e-6).all()
    adam = measured(forgetting, "Adam", drawn, 2**-6)
    assert (np.abs(adam["a_after_fresh"] - adam["a_before"]) > 1e-3).all()


def test_the_grid_goes_on_while_the_best_rate_is_its_last(forgetting, drawn):
    rule = forgetting.RULES["SGD"]
    grid = {"centre": 2**-9, "rates": 3, "most": 12}
    found = forgetting.measure(rule, drawn, drawn, every=5, **grid)
    assert found["rate"] > 2**-7 and not found["at_edge"]
    losses = [loss for _, loss in found["grid"] if loss is not None]
    assert min(losses) == dict(found["grid"])[found["rate"]]


def test_psi_has_its_minimum_at_the_origin(toy):
    at = lambda *point: float(toy.psi(jnp.array(point), 10.0, 2.0))
    assert at(0.0, 0.0) == 0 and at(*toy.START) > 100
    bend = np.sin(2.0) * toy.ALPHA
    assert at(1.0, 1.0 + bend) == pytest.approx(1)


@pytest.mark.parametrize("name", ["momentum", "delta, column"])
def test_steps_are_counted_as_the_path_shows_them(toy, name):
    numbers = (0.05, 0.8, 0.5, 1.0, 1.0)
    values, points = toy.path(name, 200, *numbers)
    steps = int(toy.steps_needed(name, 200, jnp.array(toy.START), *numbers))
    assert (values[steps:] < toy.GOAL).all() and values[steps - 1] >= toy.GOAL
    assert points[0] == pytest.approx(toy.START)
    assert np.isinf(toy.steps_needed(name, steps - 1, jnp.array(toy.START), *numbers))


def test_as_a_row_delta_momentum_is_momentum_with_less_decay(toy):
    delta, _ = toy.path("delta, row", 30, 0.02, 0.9, 0.5, 3.0, 2.0)
    plain, _ = toy.path("momentum", 30, 0.02, 0.4, 0.0, 3.0, 2.0)
    np.testing.assert_allclose(delta, plain, rtol=1e-3, atol=1e-5)


def run(script, *arguments):
    root = EXPERIMENTS.parents[1]
    done = subprocess.run(
        [sys.executable, str(EXPERIMENTS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.long
def test_forgetting_writes_its_files_and_goes_on(tmp_path):
    few = ("--steps", 40, "--seeds", 2, "--rates", 1, "--most", 1, "--problems", "narrow")
    few += ("--out", tmp_path, "--rules", "SGD", "DGD")
    assert "SGD" in run("forgetting.py", *few)
    path = tmp_path / "forgetting.md"
    path.write_text(path.read_text() + "\nMine.\n")
    assert "DGD" not in run("forgetting.py", *few)
    found = json.loads((tmp_path / "forgetting.json").read_text())
    assert set(found["problems"]["narrow"]) == {"SGD", "DGD"}
    assert found["seeds"]["reported"] == [0, 1] and found["device"]["platform"] == "cpu"
    assert (tmp_path / "forgetting.png").stat().st_size > 10_000
    assert "| SGD |" in path.read_text() and path.read_text().endswith("Mine.\n")


@pytest.mark.slow
@pytest.mark.long
def test_toy_writes_its_files(tmp_path):
    run("toy.py", "--steps", 60, "--rates", 4, "--out", tmp_path)
    found = json.loads((tmp_path / "toy.json").read_text())
    assert len(found["fixed"]["momentum"]) == 15 and "versions" in found
    assert (tmp_path / "toy.png").exists() and "sooner in" in (tmp_path / "toy.md").read_text()
