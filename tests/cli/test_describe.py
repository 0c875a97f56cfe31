"""`hope describe`: everything about a model before it is built."""

from pathlib import Path

import pytest

from hope_jax.cli.main import main

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def describe(capsys):
    def describe(*argv):
        status = main(["describe", "--config", *map(str, argv)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return describe


def rows(out):
    """Columns of every line that has several, by the first."""
    split = [line.split("  ") for line in out.splitlines()]
    lines = [[cell.strip() for cell in cells if cell.strip()] for cells in split]
    return {cells[0]: cells[1:] for cells in lines if len(cells) > 1}


def test_levels_parameters_state_and_cost_of_a_billion(describe):
    status, out, _ = describe(EXPERIMENTS / "hope_1b.py")
    table = rows(out)
    assert status == 0
    assert "hope_1b: 1,295,003,136 parameters" in out
    assert table["period_32"][:3] == ["32", "302,039,040", "1.13 GiB"]
    assert table["embed/table"] == ["32000 x 2048", "vocab, embed", "65,536,000"]
    assert table["blocks/mixer/w_out"][1] == "layers, heads, head_dim, embed"
    assert "the same after any number of tokens" in out
    assert sum(int(table[name][1].replace(",", "")) for name in _levels(table)) == 1_295_003_136


def _levels(table):
    return [name for name in table if name.startswith("period_")]


def test_overrides_and_variants(describe):
    _, out, _ = describe(
        f"{EXPERIMENTS}/small.py:transformer", "--set", "model.depth=2", "--set", "optim.lr=0.5"
    )
    assert "depth 2, width 128" in out
    assert "adamw, learning rate 0.5" in out
    assert "it grows with every token" in out


def test_a_mistake_is_told_in_one_line(describe):
    status, _, err = describe(EXPERIMENTS / "small.py", "--set", "model.dept=2")
    assert status == 2
    assert err.count("\n") == 1
    assert "did you mean 'depth'" in err


def test_levels_within_a_text(describe):
    _, out, _ = describe(
        EXPERIMENTS / "small.py",
        "--set",
        "model.cms.periods=(1,4)",
        "--set",
        "model.cms.in_context.chunks=(32,128)",
    )
    found = [line.split() for line in out.splitlines() if line.startswith("period_4 ")]
    assert found[1][:2] == ["period_4", "128"]
    assert "in the last 1 of 4 blocks, whole matrices, sgd at 0.1, times a learned" in out
    assert "learning within the text" in out
