"""The script that asks which preset fits which slice."""

import importlib
import json
from pathlib import Path

import pytest

from hope_jax.config import DataConfig, TrainConfig
from hope_jax.parallel.slices import find_slice

PODS = Path(__file__).parents[2] / "experiments" / "pods"


@pytest.fixture
def fits(monkeypatch):
    monkeypatch.syspath_prepend(PODS)
    return importlib.import_module("fits")


@pytest.mark.parametrize(
    "name, shape",
    [
        ("v5e-16", (1, 16, 1)),
        ("v5e-64", (2, 32, 1)),
        ("v5e-256", (4, 32, 2)),
        ("v5p-1024", (4, 32, 4)),
        ("tpu7x-128", (4, 32, 1)),
    ],
)
def test_the_mesh_uses_every_device_and_has_a_row_for_each(fits, name, shape):
    config = TrainConfig(data=DataConfig(batch=128))
    mesh = fits.mesh_for(config, name)
    assert (mesh.data, mesh.fsdp, mesh.tensor) == shape
    assert mesh.shape(find_slice(name).devices) == shape
    assert config.data.batch % (mesh.data * mesh.fsdp) == 0


def test_micro_batches_until_it_fits(fits, monkeypatch, tmp_path):
    """With a stand-in for the compiler, which has room for two rows a device."""
    asked = []

    def compile_for(config, name):
        asked.append(config.accumulate)
        rows = config.data.batch // config.accumulate // (config.mesh.data * config.mesh.fsdp)
        facts = dict.fromkeys(("topology", "mesh", "error"), "")
        facts |= {"config": config.name, "program": "train", "slice": name, "slices": 1}
        facts |= {"chips": 16, "hosts": 4, "devices": 16, "parameters": 1, "tokens": 1}
        facts |= {"bytes": {}, "usable": 2.0, "flops": 1.0, "compute_seconds": 0.1}
        facts |= {"memory_seconds": 0.2, "fsdp_bytes": 1.0, "versions": {"jax": "1"}}
        return fits.Report(**facts, peak=rows, collectives={"all-gather": 1.5})

    monkeypatch.setattr(fits, "compile_for", compile_for)
    found = fits.compile_pair("hope_340m", "hope", "v5e-16")
    assert asked == [1, 2, 4] and found["accumulate"] == 4 and found["fits"]
    (tmp_path / "hope_340m-hope-v5e-16.json").write_text(json.dumps(found))
    page = fits.write_table(tmp_path)
    assert (
        "| hope_340m | v5e-16 |" in page and "| memory |" in page and "| 1.50 | yes |" in page
    )
    assert "no step time is predicted" in " ".join(page.split())
