"""The experiment from training to page, with next to no steps."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

from continual import facts, hostile, measure, meta_train, report

from hope_jax.streams import Limits


@pytest.mark.slow
@pytest.mark.long
def test_train_go_on_measure_and_report(tmp_path, monkeypatch, capsys):
    tokenizer = facts.train_tokenizer(sentences=100)
    monkeypatch.setattr(meta_train, "train_tokenizer", lambda: tokenizer)
    small = meta_train.get_config

    def get_config(*args):
        config = small(*args)
        data = dataclasses.replace(config.data, batch=2, length=512)
        return dataclasses.replace(config, data=data)

    monkeypatch.setattr(meta_train, "get_config", get_config)
    runs, out = tmp_path / "seed_0", tmp_path / "out"
    for arm in ("cms", "frozen_cms"):
        meta_train.train(arm, runs / arm, steps=1, seed=0)
    first = (runs / "cms" / "checkpoints" / "1" / "files.json").read_bytes()
    meta_train.train("cms", runs / "cms", steps=1, seed=0)  # nothing is left to do
    assert (runs / "cms" / "checkpoints" / "1" / "files.json").read_bytes() == first

    monkeypatch.setattr(measure, "COUNTS", (2,))
    monkeypatch.setattr(measure, "DISTANCES", (0,))
    sleep = dataclasses.replace(measure.SLEEP, steps=2, samples=4)
    monkeypatch.setattr(measure, "SLEEP", sleep)
    found = measure.measure(runs, seed=0, rows=2, sleepers=1)
    monkeypatch.setattr(hostile, "LIMITS", {"tight": Limits(norm=0.1)})
    monkeypatch.setattr(hostile, "LENGTH", 300)
    attacks = hostile.attacks(runs / "cms")

    assert set(found["by_count"][2]) == {
        "cms, context dropped",
        "cms, frozen",
        "frozen_cms, context dropped",
        "frozen_cms, facts in the context",
    }
    assert found["after_sleep"][0]["change of period 4"] > 0
    found = json.loads(json.dumps(found))
    before = json.loads(json.dumps(found))  # as if frozen_cms had come later
    for values in (before["steps"], before["by_count"]["2"], before["by_distance"]["0"]):
        for name in [name for name in values if name.startswith("frozen_cms")]:
            del values[name]
    again = measure.measure(runs, 0, 2, 1, before)
    assert json.loads(json.dumps(again)) == found
    with pytest.raises(ValueError, match="every arm in .* was measured: cms, frozen_cms"):
        measure.measure(runs, 0, 2, 1, again)
    with pytest.raises(ValueError, match="on 2 streams per point, not on 3"):
        measure.measure(runs, 0, 3, 1, before)
    assert abs(attacks[0]["one token"]["change"]) < 1
    out.mkdir()
    (out / "seed_0.json").write_text(json.dumps(found))
    (out / "hostile_0.json").write_text(json.dumps(attacks))
    page = report.report(out)
    assert "| 2 |" in page and "| tight |" in page
    assert (out / "by_count.png").stat().st_size > 0
