"""Whole runs on several devices: the same losses, on whatever mesh they go on."""

import dataclasses

import jax
import numpy as np
import pytest

import hope_jax
from hope_jax.config import MeshConfig, SelfModifyingConfig
from hope_jax.training import train
from hope_jax.training.workdir import differences


@pytest.fixture(scope="module")
def shared(config):
    """The run of these tests, with eight rows for eight devices, in four micro-batches."""
    data = dataclasses.replace(config.data, batch=32)
    mixer = SelfModifyingConfig(heads=2, chunk=4, rate_hidden=4)
    model = dataclasses.replace(config.model, mixer=mixer)
    return dataclasses.replace(config, model=model, data=data, accumulate=4, steps=8)


def on(config, **numbers):
    return dataclasses.replace(config, mesh=MeshConfig(**numbers))


@pytest.fixture(scope="module")
def alone(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train(shared, folder)
    return folder


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(shared, alone, tmp_path, logged):
    outcome = train(on(shared, data=2, tensor=2), tmp_path)
    assert outcome.summary["device"]["count"] == 8
    expected, found = logged(alone), logged(tmp_path)
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        np.testing.assert_allclose(found[step], values, rtol=2e-4, err_msg=f"step {step}")
    one, many = (hope_jax.load(folder).params for folder in (alone, tmp_path))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), one, many)


@pytest.mark.slow
def test_a_run_goes_on_with_another_mesh(shared, alone, tmp_path, logged):
    half = dataclasses.replace(shared, steps=4, eval_every=100)
    train(on(half, fsdp=4), tmp_path)
    train(on(shared, data=2, fsdp=1, tensor=2), tmp_path)
    expected, found = logged(alone), logged(tmp_path)
    # the schedule of the first half ends earlier, so losses are near and not the same
    assert found.keys() == expected.keys()
    assert differences({"mesh": {"fsdp": 4}}, {"mesh": {"fsdp": 8}}) == []


def test_a_batch_that_the_devices_cannot_share_is_refused(shared, tmp_path):
    with pytest.raises(ValueError, match="data.batch 32 / accumulate 8 is 4 rows.* 8 parts"):
        train(on(dataclasses.replace(shared, accumulate=8)), tmp_path)
    with pytest.raises(ValueError, match="2 along 'heads' cannot be split in 8"):
        train(on(shared, tensor=8), tmp_path)
