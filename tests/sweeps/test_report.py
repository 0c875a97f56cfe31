"""One page over many runs."""

import json
import shutil

import numpy as np
import pytest

from hope_jax.config import TrainConfig, override, to_dict
from hope_jax.sweeps import find_runs, write_report
from hope_jax.sweeps.collect import differing


def finish(folder, name, loss, **changes):
    """What a finished run leaves."""
    run = folder / name
    run.mkdir(parents=True)
    config = override(TrainConfig(), {"model.mixer": "attention", **changes})
    summary = {
        "config": to_dict(config),
        "held_out": {
            "loss": loss,
            "bits_per_byte": loss * 1.4,
            "loss_by_position": [loss + 2, loss, loss - 1],
        },
        "held_out_without_writes": None,
        "parameters": 1000,
        "tokens": 5000,
        "cpu_seconds": 90.0,
        "skipped_steps": 0,
        "device": {"kind": "cpu"},
        "versions": {"jax": "1"},
    }
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 5.0}\n{"step": 2, "loss": 4.0, "tokens_per_second": 1500.0}\n'
    )


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "comparison"
    for rule, base in (("adamw", 2.0), ("m3", 1.8)):
        for rate, more in ((1e-3, 0.3), (3e-3, 0.0), (1e-2, 0.1)):
            for seed in (0, 1):
                changes = {
                    "optim.rule": rule,
                    "optim.lr": rate,
                    "seed": seed,
                    "data.seed": seed,
                }
                loss = base + more + 0.02 * seed
                finish(folder, f"{rule}-{rate}-{seed}", loss, **changes)
    return folder


def rows(page):
    return [line for line in page.splitlines() if line.startswith("| ")][2:]


def test_seeds_are_one_line_and_the_best_is_first(runs):
    page = write_report(runs)
    lines = rows(page)
    assert len(lines) == 6
    assert lines[0].startswith("| m3-0.003 | m3 | 0.003 | 1.810 (1.800 to 1.820) |")
    assert "| runs | type | lr | held-out loss |" in page or "| rule.type | lr |" in page
    assert "12 runs: kind cpu, jax 1." in page
    assert (runs / "report.md").read_text() == page
    assert (runs / "losses.png").exists() and (runs / "curves.png").exists()
    kept = json.loads((runs / "runs.json").read_text())
    assert len(kept) == 12 and kept[0]["tokens_per_second"] == 1500.0
    assert {k["run"] for k in kept} == {p.parent.name for p in runs.glob("*/summary.json")}
    assert all("loss_by_position" not in k["held_out"] for k in kept)
    assert (runs / "positions.png").exists()
    first, *_, last = kept[0]["positions"]
    assert first[:2] == [1, 1] and last[1] == 3
    assert first[2] - last[2] > 1.9


def test_positions_come_back_from_what_a_report_kept(runs, tmp_path):
    before = find_runs(runs)[0].positions()
    write_report(runs, tmp_path / "kept")
    after = next(r for r in find_runs(tmp_path / "kept") if r.path.name == "adamw-0.001-0")
    np.testing.assert_allclose(after.positions(), before, atol=1e-4)


def test_positions_of_a_few_are_not_shown_as_if_of_all(runs, tmp_path):
    for path in runs.glob("m3-0.003-*/summary.json"):
        summary = json.loads(path.read_text())
        del summary["held_out"]["loss_by_position"]
        path.write_text(json.dumps(summary))
    assert "positions.png" not in write_report(runs, tmp_path)
    assert not (tmp_path / "positions.png").exists()


def test_a_report_within_its_folder_counts_no_run_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b")):
        finish(tmp_path / "runs", name, 1.0, seed=seed)
    write_report("runs", tmp_path / "runs" / "all" / "of_them")
    for folder in ("runs", tmp_path / "runs", "runs/../runs"):
        assert len(find_runs(folder)) == 2
    (tmp_path / "runs/b/summary.json").unlink()  # what was kept of it is all there is
    assert [run.path.name for run in find_runs("runs")] == ["a", "b"]
    assert "2 finished runs" in write_report("runs/all/of_them")  # from what was kept alone
    assert len(find_runs("runs")) == 2


def test_every_configuration_at_its_best_rate(runs, tmp_path):
    lines = rows(write_report(runs, tmp_path / "out", best="optim.lr"))
    assert len(lines) == 2
    assert lines[1].startswith("| adamw-0.003 | adamw | 0.003 |")
    assert lines[1].endswith("| 0.001: 2.310, 0.003: 2.010, 0.01: 2.110 |")
    assert (tmp_path / "out" / "tuning.png").exists()
    with pytest.raises(ValueError, match="do not differ in it; they differ in optim.rule.type"):
        write_report(runs, best="optim.warmup")


def test_fields_are_compared_within_a_kind(tmp_path):
    for name, rule in (("a", "m3"), ("b", "deep_momentum")):  # both have a `period`, not alike
        finish(tmp_path, name, 1.0, **{"optim.rule": rule})
    assert differing(find_runs(tmp_path)) == ["optim.rule.type"]
    finish(tmp_path, "c", 1.0, **{"optim.rule": "m3", "optim.rule.period": 3})
    assert differing(find_runs(tmp_path)) == ["optim.rule.type", "optim.rule.period"]


def test_a_width_that_was_solved_for_is_told_only_where_it_was_chosen(tmp_path):
    finish(tmp_path, "a", 1.0, **{"model.depth": 2, "model.cms.hidden": 64})
    finish(tmp_path, "b", 1.0, **{"model.depth": 3, "model.cms.hidden": 32})
    assert differing(find_runs(tmp_path)) == ["model.depth"]
    finish(tmp_path, "c", 1.0, **{"model.depth": 3, "model.cms.hidden": 16})
    assert differing(find_runs(tmp_path)) == ["model.depth", "model.cms.hidden"]


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "{", "\xff", '{"config": "of another", "held_out": {"loss": 1}}']
)
def test_a_summary_of_something_else_is_left_out(tmp_path, text):
    finish(tmp_path, "a", 1.0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").write_text(text, encoding="latin-1")
    with pytest.warns(UserWarning, match="other/summary.json is not the summary of a run"):
        page = write_report(tmp_path)
    assert len(rows(page)) == 1


def test_nothing_to_report_and_broken_runs(tmp_path):
    with pytest.raises(ValueError, match="no finished run below"):
        write_report(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    for text in ("{}", "[1]"):
        (tmp_path / "runs.json").write_text(text)
        with pytest.raises(ValueError, match="not what a report keeps of runs; name a folder"):
            write_report(tmp_path)


def test_a_run_of_another_version_is_reported_without_its_state(tmp_path):
    finish(tmp_path, "a", 1.0)
    path = tmp_path / "a" / "summary.json"
    summary = json.loads(path.read_text())
    summary["config"]["model"]["mixer"]["no_longer"] = 3
    path.write_text(json.dumps(summary))
    assert rows(write_report(tmp_path))[0].startswith("| a | 1.000 |")


def test_many_fields_leave_room_for_the_plot(tmp_path):
    for name, path in (("a", "x" * 300), ("b", " ".join("y" * 99))):
        finish(tmp_path, name, 1.0, **{"data.path": path})
    write_report(tmp_path)  # a warning of the plot would be an error


def test_runs_that_log_otherwise_are_the_same(tmp_path):
    finish(tmp_path, "a", 1.0, eval_batches=3)
    finish(tmp_path, "b", 2.0, eval_batches=4, seed=1)
    assert rows(write_report(tmp_path))[0].startswith("|  | 1.500 (1.000 to 2.000) |")


def test_tasks_are_told_by_their_right_answers(tmp_path):
    for seed, share in ((0, 0.5), (1, 0.75)):
        finish(tmp_path, f"run-{seed}", 2.0, seed=seed)
        path = tmp_path / f"run-{seed}" / "summary.json"
        summary = json.loads(path.read_text())
        summary["held_out"] = {"loss": 2.0, "accuracy": share, "chance": 0.25}
        summary["tests"] = {"data.length=99": {"accuracy": share / 2}}
        path.write_text(json.dumps(summary))
    page = write_report(tmp_path)
    assert "| held-out loss | right, % | chance, % | data.length=99 | writes off |" in page
    line = rows(page)[0]
    assert "| 62.5 (50.0 to 75.0) | 25.0 | 31.2 (25.0 to 37.5) |" in line
    kept = json.loads((tmp_path / "runs.json").read_text())
    assert kept[0]["tests"] == {"data.length=99": {"accuracy": 0.25}}


def test_runs_that_are_gone_stay_in_the_report(runs, tmp_path):
    page = write_report(runs, best="optim.lr")
    later = tmp_path / "later"
    finish(later, "muon-0.003-0", 1.81, **{"optim.rule": "muon", "optim.lr": 3e-3})
    finish(later, "m3-0.003-0", 1.8, **{"optim.rule": "m3", "optim.lr": 3e-3})  # as kept
    (later / "runs.json").write_text((runs / "runs.json").read_text())
    again = write_report(later, best="optim.lr")
    names = [line.split(" | ")[0] for line in rows(again)]
    assert names == ["| m3-0.003", "| muon-0.003-0", "| adamw-0.003"]
    assert set(rows(page)) < set(rows(again))
    written = json.loads((later / "runs.json").read_text())
    assert len(written) == 13
    assert all(r["curve"] == [[1, 5.0], [2, 4.0]] for r in written)
    (later / "runs.json").write_text("{")
    with pytest.raises(ValueError, match="is not what a report keeps"):
        find_runs(later)


def test_a_copy_is_no_further_seed(tmp_path):
    """Nor does it make a worse rate win."""
    folder = tmp_path / "runs"
    finish(folder, "a", 5.5, **{"optim.lr": 1e-3})
    finish(folder, "d", 5.4, **{"optim.lr": 9e-3})
    shutil.copytree(folder / "a", folder / "a_backup")
    page = write_report(folder, best="optim.lr")
    assert "| d | 0.009 | 5.400 |" in page and "2 finished runs" in page
    assert "Left out: a_backup has the configuration and the seeds of a." in page


def test_a_name_is_not_cut_within_a_value(tmp_path):
    folder = tmp_path / "runs"
    for seed, name in enumerate(("lr_0.001-x", "lr_0.003-x")):
        finish(folder, name, 5.0, seed=seed)
    for seed, name in enumerate(("hope-seed_1", "hope-seed_10")):
        finish(folder, name, 4.0, seed=seed, **{"optim.lr": 0.5})
    page = write_report(folder)
    assert "| lr |" in page and "| hope-seed |" in page
