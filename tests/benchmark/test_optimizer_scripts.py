"""The script that times update rules."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "optimizers"


@pytest.mark.slow
def test_step_times_are_measured(tmp_path):
    sizes = ["--width", 64, "--depth", 1, "--tokens", 256, "--length", 64, "--rounds", 2]
    done = subprocess.run(
        [sys.executable, FOLDER / "step_time.py", *map(str, sizes), "--out", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "step_time.json").read_text())
    rows = {row["rule"]: row for row in found["rows"]}
    assert rows["adamw"]["newton_schulz_flops"] == 0 < rows["m3"]["newton_schulz_flops"]
    assert (
        rows["muon"]["state_bytes"] < rows["adamw"]["state_bytes"] < rows["m3"]["state_bytes"]
    )
    assert all(row["update_seconds"] > 0 for row in found["rows"])
