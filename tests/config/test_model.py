"""Mistakes in a configuration are told when it is made, not when a run comes to them."""

import pytest

from hope_jax.config import CMSConfig, SelfModifyingConfig, TrainConfig, override


@pytest.mark.parametrize("periods", [(), (0,), (2, 2), (1, 4, 1)])
def test_periods_that_cannot_be_run(periods):
    with pytest.raises(ValueError, match="cms.periods"):
        CMSConfig(periods=periods)


def test_periods_need_not_start_at_one():
    assert CMSConfig(periods=(2, 8, 32)).periods == (2, 8, 32)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"seed": -1},
        {"seed": 2**32},
        {"sample_tokens": -1},
        {"sample_prompt": ""},
        {"data.workers": -1},
        {"data.length": 2**31},
        {"optim.lr": float("inf")},
        {"optim.b2": 1.0},
        {"optim.eps": -1e-8},
        {"optim.weight_decay": float("nan")},
        {"optim.levels": [{"period": 1, "lr_factor": -1.0}]},
        {"model.norm_eps": -1.0},
        {"model.init_std": float("nan")},
    ],
    ids=str,
)
def test_values_that_no_run_can_use(changes):
    (field,) = changes
    with pytest.raises(ValueError, match=f"{field} .*(use|needs|give)"):
        override(TrainConfig(), changes)


def test_no_prompt_is_needed_for_no_sample():
    assert override(TrainConfig(), {"sample_tokens": 0, "sample_prompt": ""}).sample_tokens == 0


def test_rates_alone_need_one_chunk():
    with pytest.raises(ValueError, match="leave memory_chunk at None"):
        SelfModifyingConfig(adaptive=("eta",), chunk=2, memory_chunk=4)
    SelfModifyingConfig(adaptive=("eta",), chunk=4, memory_chunk=4)
    SelfModifyingConfig(adaptive=(), chunk=2, memory_chunk=4)
