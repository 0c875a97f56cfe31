"""The TPU compiler itself, on small models; only where the tpu extra is installed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hope_jax import aot
from hope_jax.aot import compile_for
from hope_jax.aot import run as running
from hope_jax.cli.main import main
from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    MeshConfig,
    ModelConfig,
    SelfModifyingConfig,
    TrainConfig,
    to_json,
)
from hope_jax.parallel.slices import find_slice

HOPE = ModelConfig(
    dim=128,
    depth=4,
    mixer=SelfModifyingConfig(heads=2, chunk=16),
    cms=CMSConfig((1, 4), hidden=256),
    dtype="bfloat16",
    remat="block",
)
CONFIG = TrainConfig(name="small", model=HOPE, data=DataConfig(batch=16, length=64))


@pytest.fixture(scope="module")
def compiler():
    pytest.importorskip("libtpu", reason="pip install -e '.[tpu]'")


@pytest.mark.usefixtures("compiler")
def test_a_training_step_for_eight_chips():
    report = compile_for(CONFIG, "v5e-8")
    assert report.fits and not report.suspicious
    assert report.peak < report.usable and report.temporary > 0
    state = report.bytes["parameters"] + report.bytes["optimizer"]
    assert 0.9 * state < 4 * 4 * report.parameters / 8 < 1.5 * state  # with sums of one level
    # weights are gathered twice, gradients reduced by parts; norms and scalars come on top
    assert 0.5 < report.moved / report.fsdp_bytes < 1.6
    assert any("fits" in line for line in report.lines())


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_tensor_parts_decoding_and_slices():
    attention = dataclasses.replace(HOPE, mixer=AttentionConfig(heads=4))
    config = dataclasses.replace(CONFIG, model=attention, mesh=MeshConfig(tensor=2))
    assert compile_for(config, "v5p-8").fits
    assert compile_for(CONFIG, "v5e-8", program="decode").fits
    report = compile_for(CONFIG, "v5e-4", slices=2)
    assert report.fits and (report.devices, report.hosts) == (8, 2)
    assert report.mesh == "data 2 x fsdp 4 x tensor 1"


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_decoding_accumulates_nothing_and_sees_all_keys():
    attention = dataclasses.replace(HOPE, mixer=AttentionConfig(heads=4))
    data = DataConfig(batch=4, length=256)
    config = dataclasses.replace(CONFIG, model=attention, data=data, accumulate=4)
    report = compile_for(config, "v5e-4", program="decode")
    assert report.fits and report.tokens == 4
    # of one layer: four projections, two products with the keys, those of the CMS
    layer = 2 * 4 * 128**2 + 2 * 2 * 128 * 257 + 2 * 3 * 128 * 256
    assert report.flops == 4 * (4 * layer + 2 * 128 * attention.vocab_rows)
    chip = find_slice("v5e-4").chip
    keys = 2 * 4 * 256 * 128 * 2  # and values, of all layers and one row, in bfloat16
    traffic = 2 * report.parameters + 2 * keys
    assert report.memory_seconds == pytest.approx(traffic / chip.bandwidth, rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_what_does_not_fit_is_told(tmp_path, capsys):
    model = dataclasses.replace(HOPE, dim=4096, cms=CMSConfig((1,), hidden=65536), remat="none")
    config = dataclasses.replace(CONFIG, model=model, data=DataConfig(batch=64, length=2048))
    file = tmp_path / "large.json"
    file.write_text(to_json(config))
    assert main(["aot", "--config", str(file), "--topology", "v5e-1"]) == 1
    out = capsys.readouterr().out
    assert "does not" in out and ("raise" in out or "lower" in out)


def test_mistakes_are_told_before_anything_is_compiled(monkeypatch):
    with pytest.raises(ValueError, match="no TPU 'v9'"):
        compile_for(CONFIG, "v9-8")
    monkeypatch.setattr(running.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="install the tpu extra"):
        compile_for(CONFIG, "v5e-8")


@pytest.mark.usefixtures("compiler")
def test_a_batch_that_the_slice_cannot_share():
    config = dataclasses.replace(CONFIG, data=DataConfig(batch=6, length=64))
    with pytest.raises(ValueError, match="data.batch 6.* cannot share equally"):
        compile_for(config, "v5e-8")


@pytest.mark.parametrize(
    "code, error, said",
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            running.CompilerCrash,
            "SIGSEGV",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            running.CompilerKilled,
            r"outside by SIGKILL \(by hand, or because the machine ran out of memory",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
            running.CompilerKilled,
            "ended from outside by SIGTERM; try again",
        ),
        ("raise RuntimeError('odd')", running.CompilerCrash, "failed: RuntimeError: odd"),
        ("raise ValueError('this mesh')", ValueError, "^this mesh$"),
        ("import time; time.sleep(60)", TimeoutError, "took more than 2 s"),
    ],
)
def test_how_the_compiler_ended(monkeypatch, tmp_path, code, error, said):
    """A stand-in for the process in which the compiler runs, ending in different ways."""
    (tmp_path / "hope_jax_worker.py").write_text(code)
    monkeypatch.setattr(running.importlib.util, "find_spec", lambda name: True)
    real = running.subprocess.run
    stand_in = [running.sys.executable, str(tmp_path / "hope_jax_worker.py")]
    monkeypatch.setattr(running.subprocess, "run", lambda command, **k: real(stand_in, **k))
    with pytest.raises(error, match=said):
        compile_for(CONFIG, "v5e-8", timeout=2)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(to_json(CONFIG))
    return str(path)


@pytest.mark.parametrize("error", [aot.CompilerCrash, aot.CompilerKilled])
def test_no_answer_is_another_status_than_no(monkeypatch, file, capsys, error):
    def compile_for(*args, **options):
        raise error("at address 0")

    monkeypatch.setattr(aot, "compile_for", compile_for)
    assert main(["aot", "--config", file, "--topology", "v5e-8"]) == 70
    assert capsys.readouterr().err == "hope aot: error: at address 0\n"


def test_a_place_for_the_program_that_is_not_there(monkeypatch, file, capsys):
    monkeypatch.setattr(aot, "compile_for", None)  # it is told before that
    command = ["aot", "--config", file, "--topology", "v5e-8", "--hlo", "/nope/x.txt"]
    assert main(command) == 2
    assert "the folder of --hlo /nope/x.txt does not exist" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_compiler_ends_with_the_one_that_asked(tmp_path, file, number):
    folder = tmp_path / "temporary"
    folder.mkdir()
    command = [sys.executable, "-m", "hope_jax", "aot", "--config", file]
    parent = subprocess.Popen(
        [*command, "--topology", "v5e-8"], env=os.environ | {"TMPDIR": str(folder)}
    )
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    until(lambda: any(folder.glob("*/request.json")) and children.read_text())
    worker = Path("/proc", children.read_text().split()[0], "stat")
    parent.send_signal(number)
    assert parent.wait(60) == (143 if number == signal.SIGTERM else -number)
    until(lambda: not worker.exists() or " Z " in worker.read_text())
    assert number == signal.SIGKILL or list(folder.iterdir()) == []


def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_report_in_words_and_as_json():
    report = running.Report(
        config="small",
        program="train",
        slice="v5e-8",
        slices=1,
        topology="2x4",
        chips=8,
        hosts=1,
        devices=8,
        mesh="data 1 x fsdp 8 x tensor 1",
        parameters=1000,
        tokens=512,
        bytes={"parameters": 2**30, "optimizer": 2**31},
        usable=16 * 2**30,
        flops=1e15,
        compute_seconds=0.2,
        memory_seconds=0.1,
        fsdp_bytes=3e9,
        versions={},
        peak=17 * 2**30,
        temporary=14 * 2**30,
        collectives={"all-gather": 6e9},
        compile_seconds=3.0,
    )
    text = "\n".join(report.lines())
    assert not report.fits and "does not fit" in text and "raise accumulate" in text
    assert "2.00 times" in text and "compute sets the floor of 200.0 ms" in text
    assert json.loads(report.to_json())["fits"] is False
    full = dataclasses.replace(report, bytes={"optimizer": 15 * 2**30})
    assert "raise mesh.fsdp" in "\n".join(full.lines())
