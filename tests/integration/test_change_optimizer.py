"""A run goes on under another optimizer; levels that keep their rule do not notice."""

import shutil

import jax
import numpy as np
import pytest

from hope_jax.checkpoint.storage import read_arrays, read_json
from hope_jax.config import override
from hope_jax.training import train

MUON = {"optim.rule": "muon", "optim.levels": [{"period": 3, "rule": "adamw"}]}


@pytest.fixture(scope="module")
def half(config, tmp_path_factory):
    """The run stopped at step 4, one step into the second update of the slow level."""
    workdir = tmp_path_factory.mktemp("half")
    train(override(config, {"steps": 4}), workdir)
    return workdir


def level(workdir, step, name):
    """Arrays of one level in a checkpoint."""
    path = workdir / "checkpoints" / str(step)
    contents = read_json(path)["contents"]
    item = f"level_{name}"
    shapes = {
        p: np.zeros(x["shape"], x["dtype"]) for p, x in contents["items"].get(item, {}).items()
    }
    return read_arrays(path, {item: shapes}, contents)[item]


def test_only_with_consent_and_only_the_optimizer(config, half, tmp_path):
    run = shutil.copytree(half, tmp_path / "run")
    with pytest.raises(ValueError, match="add --change-optimizer"):
        train(override(config, MUON), run)
    with pytest.raises(ValueError) as refused:
        train(override(config, MUON | {"data.batch": 8}), run, change_optimizer=True)
    assert "--change-optimizer" not in str(refused.value)
    assert "data.batch: 4 -> 8" in str(refused.value)


def test_the_fast_level_begins_anew_and_the_slow_one_goes_on(config, half, tmp_path, capsys):
    run = shutil.copytree(half, tmp_path / "run")
    # A rate of zero, so that what changes is the optimizer states alone.
    changed = override(config, MUON | {"steps": 5, "optim.lr": 1e-30, "optim.end_lr": 1.0})
    assert train(changed, run, change_optimizer=True).step == 5
    said = capsys.readouterr().out
    assert "another rule: period_1 start with a fresh optimizer state at step 4" in said
    before, after = level(run, 4, "period_3"), level(run, 5, "period_3")
    sums = [p for p in before if p.startswith("grad_sum/")]
    assert sums and set(before) == set(after)
    for path in before.keys() - sums:  # no boundary of the slow level in between
        np.testing.assert_array_equal(before[path], after[path])
    for path in sums:  # the fifth step's gradient came to the fourth's
        assert not np.array_equal(before[path], after[path])
    counts = {int(x) for p, x in level(run, 5, "period_1").items() if p.endswith("/count")}
    assert counts == {1, 5}  # of the moments, and of the schedule
    assert train(override(changed, {"steps": 7}), run).step == 7


SLOW = [
    pytest.param(r, marks=pytest.mark.slow) for r in ("muon", "delta_momentum", "deep_momentum")
]


@pytest.mark.parametrize("rule", ["m3", *SLOW])
def test_the_slow_level_may_change_too_and_keeps_its_gradient_sum(config, half, tmp_path, rule):
    run = shutil.copytree(half, tmp_path / "run")
    changes = {"optim.levels": [{"period": 3, "rule": rule}], "steps": 5}
    changes |= {"optim.lr": 1e-30, "optim.end_lr": 1.0}
    assert train(override(config, changes), run, change_optimizer=True).step == 5
    assert not [*(run / "checkpoints").glob("*.corrupt*")]
    fast, slow = (level(run, 5, name) for name in ("period_1", "period_3"))
    assert {int(x) for p, x in fast.items() if p.endswith("/count")} == {5}
    counts = {p: int(x) for p, x in slow.items() if p.endswith("/count")}
    assert set(counts.values()) == {0, 1}  # moments begin; the schedule has had one update
    before = level(half, 4, "period_3")
    for path in (p for p in before if p.startswith("grad_sum/")):
        # One gradient was there, of step 4, and one has come to it.
        assert np.abs(slow[path]).max() > 0 and not np.array_equal(slow[path], before[path])
        change = slow[path] - before[path]
        assert np.linalg.norm(change) < 10 * np.linalg.norm(before[path]) + 1e-6


def test_the_slow_level_is_bit_for_bit_what_it_was(config, half, tmp_path):
    """Parameters and states at step 4 are the same, whichever optimizer reads them."""
    from hope_jax.checkpoint import CheckpointManager
    from hope_jax.models import abstract_params
    from hope_jax.optim import make
    from hope_jax.parallel import make_mesh
    from hope_jax.training.resume import resume_or_start

    class Batches:
        def set_state(self, state):
            self.state = state

    mesh = make_mesh(config.mesh)

    def resumed(config, **how):
        levels = make(config, abstract_params(config.model))
        checkpoints = CheckpointManager(half / "checkpoints")
        return resume_or_start(config, levels, checkpoints, Batches(), mesh, **how)[0]

    old = resumed(config)
    new = resumed(override(config, MUON), say=lambda line: None, change_optimizer=True)
    jax.tree.map(np.testing.assert_array_equal, old.params, new.params)
    jax.tree.map(
        np.testing.assert_array_equal,
        old.levels.levels["period_3"],
        new.levels.levels["period_3"],
    )
    assert old.levels.tick == new.levels.tick == 4
    # Another learning rate alone is no other rule.
    same = resumed(override(config, {"optim.lr": 0.5}), change_optimizer=True)
    jax.tree.map(np.testing.assert_array_equal, old.levels, same.levels)
    # Nor is a clip.
    clip = {"optim.levels": [{"period": 3, "clip": 1.0}]}
    clipped = resumed(override(config, clip), change_optimizer=True)
    for a, b in zip(jax.tree.leaves(old.levels), jax.tree.leaves(clipped.levels), strict=True):
        np.testing.assert_array_equal(a, b)


def test_resumed_is_uninterrupted_with_levels_inside_the_optimizers(config, tmp_path, logged):
    """The cut at step 8 is inside a period of M3's slow momentum, and of the slow level."""
    rules = {"type": "m3", "period": 3}, [{"period": 3, "rule": "deep_momentum"}]
    config = override(config, {"optim.rule": rules[0], "optim.levels": rules[1]})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(config, whole).step == 12
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "12")
    assert train(config, cut).step == 12
    assert logged(cut) == logged(whole)
    for name in ("period_1", "period_3"):
        a, b = level(whole, 12, name), level(cut, 12, name)
        assert a.keys() == b.keys() and len(a) > 10
        for path in a:
            np.testing.assert_array_equal(a[path], b[path])
