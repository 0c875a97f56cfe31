"""The outer optimizer in a configuration: rules, and what single levels do otherwise."""

import pytest

from hope_jax.config import (
    RULE_CONFIGS,
    AdamWRule,
    LevelConfig,
    M3Rule,
    MuonRule,
    OptimConfig,
    TrainConfig,
    from_json,
    override,
    parse_assignments,
    to_json,
)


def test_rules_are_set_by_name_with_their_fields():
    sets = ["optim.rule=m3", "optim.rule.period=4", "optim.lr=0.01"]
    optim = override(TrainConfig(), parse_assignments(sets)).optim
    assert optim.rule == M3Rule(period=4) and optim.lr == 0.01
    whole = parse_assignments(["optim.rule={'type': 'm3', 'period': 4}"])
    assert override(TrainConfig(), whole).optim.rule == M3Rule(period=4)


def test_levels_from_the_command_line_and_through_json():
    level = "optim.levels=[{'period': 8, 'rule': {'type': 'muon', 'steps': 3}, 'clip': 1}]"
    config = override(TrainConfig(), parse_assignments([level]))
    assert config.optim.levels == (LevelConfig(8, MuonRule(steps=3), clip=1.0),)
    assert from_json(to_json(config)) == config


def test_a_level_takes_from_all_what_it_does_not_say():
    own = LevelConfig(8, rule=M3Rule(), warmup=0, lr_factor=0.5, reduction="mean")
    optim = OptimConfig(warmup=7, weight_decay=0.2, schedule="constant", levels=(own,))
    at = optim.at(8)
    assert (at.rule, at.warmup, at.lr_factor, at.reduction) == (M3Rule(), 0, 0.5, "mean")
    assert (at.weight_decay, at.schedule, at.end_lr) == (0.2, "constant", 0.1)
    assert optim.at(1).rule == AdamWRule() and optim.at(1).warmup == 7


@pytest.mark.parametrize("name", sorted(RULE_CONFIGS))
def test_every_rule_goes_through_json(name):
    config = override(TrainConfig(), {"optim.rule": name})
    assert from_json(to_json(config)).optim.rule == RULE_CONFIGS[name]()


def test_a_level_without_a_rule_of_its_own_goes_through_json():
    config = TrainConfig(optim=OptimConfig(levels=(LevelConfig(8, lr_factor=2.0),)))
    assert from_json(to_json(config)) == config
    same = override(TrainConfig(), {"optim.levels": [{"period": 8, "rule": "None"}]})
    assert same.optim.levels == (LevelConfig(8),)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim.rule": "m4"}, r"optim.rule: rule type 'm4'; choose one of \['adamw'"),
        ({"optim.rule": "m3", "optim.rule.freq": 4}, "unknown field 'optim.rule.freq' in M3"),
        ({"optim.rule": "m3", "optim.rule.period": 0}, "m3.period is 0; use a whole number"),
        ({"optim.rule": "m3", "optim.rule.b1": 1.0}, "m3.b1 is 1.0; use 0 or more, and less"),
        ({"optim.rule": "delta_momentum", "optim.rule.step": "x"}, "delta_momentum.step"),
        ({"optim.rule": "deep_momentum", "optim.rule.rate": 0.0}, "rate is 0.0; use more"),
        ({"optim.levels": [{"rule": "m3"}]}, "LevelConfig needs 'period'"),
        ({"optim.levels": [{"period": 0}]}, "period 0: use at least 1"),
        ({"optim.levels": [{"period": 2, "rate": 1}]}, "unknown field 'rate' in LevelConfig"),
        ({"optim.levels": [{"period": 2, "clip": -1.0}]}, "of period 2: clip is -1.0"),
        ({"optim.levels": [{"period": 2, "warmup": -1}]}, "of period 2: warmup is -1"),
        ({"optim.levels": [{"period": 2}, {"period": 2}]}, "period 2 more than once"),
        ({"optim.levels": 3}, "optim.levels=3 is not a value.*list of LevelConfig.*period"),
        ({"optim.levels": [{"period": 2, "lr": 1.0}]}, "did you mean 'lr_factor'"),
        ({"optim.rule.period": 3}, "AdamWRule has no fields"),
        ({"optim.rule": "{'type': "}, "optim.rule=.* is not one of .*'m3'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(changes, said):
    with pytest.raises(ValueError, match=said):
        override(TrainConfig(), changes)
