"""The script that asks which preset fits which slice."""

import importlib
import json
from pathlib import Path

import pytest

from hope_jax.config import DataConfig, TrainConfig
from hope_jax.config.load import load_config
from hope_jax.parallel.slices import find_slice

PODS = Path(__file__).parents[2] / "experiments" / "pods"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(PODS)
    return importlib.import_module


@pytest.fixture
def fits(script):
    return script("fits")


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


def test_a_killed_compiler_leaves_one_pair_to_be_tried_again(
    fits, monkeypatch, tmp_path, capsys
):
    def compile_for_slice(config, name):
        if name == "v5e-16":
            raise fits.CompilerKilled("ended from outside by SIGKILL")
        return {"slice": name}

    monkeypatch.setattr(fits, "compile_for_slice", compile_for_slice)
    points = [(tmp_path / f"{name}.json", TrainConfig(), name) for name in ("v5e-16", "v5e-64")]
    fits.compile_missing(points)
    assert [path.name for path in tmp_path.iterdir()] == ["v5e-64.json"]
    assert "no v5e-16.json: ended from outside by SIGKILL" in capsys.readouterr().err


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
    config = load_config(f"{PODS.parent / 'hope_340m'}.py:hope")
    found = fits.compile_for_slice(config, "v5e-16")
    assert asked == [1, 2, 4] and found["accumulate"] == 4 and found["fits"]
    (tmp_path / "hope_340m-hope-v5e-16.json").write_text(json.dumps(found))
    page = fits.write_table(tmp_path)
    assert (
        "| hope_340m | v5e-16 |" in page and "| memory |" in page and "| 1.50 | yes |" in page
    )
    assert "no step time is predicted" in " ".join(page.split())
    table = fits.short_form(tmp_path)
    assert "| 340M HOPE | 4" not in table and "| 340M HOPE | 0.0, 200 m |" in table
    assert "Transformer++" not in table  # which was not compiled


def test_scaling_and_long_contexts_keep_to_their_tokens(script):
    scaling, contexts = script("scaling"), script("long_context")
    for slice_name in scaling.SLICES:
        strong = scaling.config_of("hope", "strong", slice_name)
        weak = scaling.config_of("transformer", "weak", slice_name)
        assert strong.data.batch == 128 and weak.data.batch == find_slice(slice_name).chips
    for length in contexts.CONTEXTS:
        data = contexts.config_of("hope", length).data
        assert data.batch * data.length == 1 << 19


def test_pages_are_made_of_reports(script, tmp_path):
    """Also where a compiler crashed, and where not all is there yet."""
    scaling, contexts = script("scaling"), script("long_context")
    facts = {"mesh": "data 1 x fsdp 4 x tensor 1", "accumulate": 2, "peak": 3 << 30}
    facts |= {"moved": 5 << 30, "fsdp_bytes": 4 << 30, "usable": 95 << 30, "chips": 4}
    facts |= {"versions": {"jax": "1"}, "fits": True, "error": ""}
    crash = json.dumps({"crash": "at address 0", "slice": "v5p-8", "accumulate": 1})
    for kind in scaling.KINDS:
        (tmp_path / f"{kind}-hope-v5p-8.json").write_text(json.dumps(facts))
        (tmp_path / f"{kind}-transformer-v5p-8.json").write_text(crash)
    points = scaling.found_in(tmp_path)
    scaling.plot(points, tmp_path / "scaling.png")
    page = scaling.write_page(points, tmp_path)
    assert "| 4 | 1 x 4 x 1 | 2 | 3.0 | 5.0 | 1.25 |" in page and "compiler crashed" in page
    (tmp_path / "hope-v5e-64-65536.json").write_text(json.dumps(facts))
    assert "| v5e-64 | 65,536 | 8 | 1 x 4 x 1 | HOPE | 3.0 |" in contexts.write_page(tmp_path)
