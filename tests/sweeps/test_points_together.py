"""Points of a sweep that are one program: which ones, and with their seeds from the start."""

import json

import pytest

from hope_jax.cli.main import main
from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    MeshConfig,
    ModelConfig,
    TrainConfig,
    override,
    to_json,
)
from hope_jax.config.sweeps import Point
from hope_jax.sweeps.runner import alike

FILE = """
from hope_jax.config import from_json, grid

def get_config():
    return from_json(r'''{config}''')

def sweep():
    yield from grid({{"optim.lr": [1e-2, 2e-2]}})
"""


def test_points_that_differ_in_seeds_and_rate_are_alike():
    changes = [{"seed": 1}, {"steps": 7}, {"optim.lr": 0.1}, {"steps": 7, "data.seed": 2}]
    points = [Point(str(c), c, override(TrainConfig(), c)) for c in changes]
    groups = [[points.index(point) for point in group] for group in alike(points, 9)]
    assert groups == [[0, 2], [1, 3]]
    assert [len(group) for group in alike(points[:1] * 5, 2)] == [2, 2, 1]


@pytest.mark.slow
def test_a_row_with_all_seeds_is_one_process(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(
        model=ModelConfig(
            dim=16, depth=1, mixer=AttentionConfig(heads=2), cms=CMSConfig(hidden=16)
        ),
        data=DataConfig(batch=4, length=16),
        mesh=MeshConfig(fsdp=1),
        steps=3,
        eval_every=3,
        eval_batches=2,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )
    (tmp_path / "rates.py").write_text(FILE.format(config=to_json(config)))
    command = ["sweep", "rates.py", "--local", "1", "--together", "6", "--seeds", "2"]
    assert main([*command, "--tune", "optim.lr=1e-4,1e-3,1e-2"]) == 0
    out = capsys.readouterr().out
    assert "lr_0.0001 and 5 more: begins" in out  # 3 rates, 2 seeds
    assert "best at optim.lr=" in out
    for path in (tmp_path / "runs" / "rates").glob("*/summary.json"):
        assert json.loads(path.read_text())["together"] in (2, 6)
    assert "--together 6" in (tmp_path / "runs" / "rates" / "command.txt").read_text()
    assert main([*command, "--tune", "optim.lr=1e-4,1e-3,1e-2"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert main(["report", "runs/rates", "--best", "optim.lr"]) == 0
    assert main([*command, "--tune", "optim.lr=1e-4,x"]) == 2
    assert "give numbers with commas" in capsys.readouterr().err


@pytest.mark.parametrize("how", [["--list"], ["--count"], ["--local", "1"]])
def test_no_run_in_a_program_is_refused(tmp_path, capsys, how):
    (tmp_path / "rates.py").write_text(FILE.format(config=to_json(TrainConfig())))
    assert main(["sweep", str(tmp_path / "rates.py"), *how, "--together", "0"]) == 2
    assert "--together 0: use at least 1 run" in capsys.readouterr().err
