"""Overrides: any order, several fields that only fit together, nothing that is not there."""

import itertools

import pytest

from hope_jax.config import (
    AttentionConfig,
    DataConfig,
    ModelConfig,
    SelfModifyingConfig,
    TrainConfig,
    override,
    parse_assignments,
)

TOGETHER = [
    {"model.dim": "90", "model.mixer.heads": "3"},  # 256 has no thirds, 90 no quarters
    {"accumulate": "5", "data.batch": "15"},
    {"model.mixer": "attention", "model.mixer.rope_theta": "500.0", "model.depth": "2"},
    {"model.mixer.chunk": "48", "model.mixer.memory_chunk": "24"},
]


@pytest.mark.parametrize("changes", TOGETHER, ids=lambda changes: next(iter(changes)))
def test_fields_are_checked_together_and_in_any_order(changes):
    orders = [dict(items) for items in itertools.permutations(changes.items())]
    configs = [override(TrainConfig(), order) for order in orders]
    assert all(config == configs[0] != TrainConfig() for config in configs)


def test_fields_of_a_new_mixer_and_of_its_group():
    changes = {"model.mixer.heads": 8, "model.mixer": "attention", "model.dim": 64}
    model = override(TrainConfig(), changes).model
    assert (model.dim, model.mixer) == (64, AttentionConfig(heads=8))
    whole = override(TrainConfig(), {"model": ModelConfig(depth=9), "model.dim": 64}).model
    assert (whole.depth, whole.dim) == (9, 64)


def test_fields_that_do_not_fit_one_another_are_still_refused():
    with pytest.raises(ValueError, match="model.dim 90 is not a multiple of mixer.heads 4"):
        override(TrainConfig(), {"model.dim": 90})


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model.dmi", 3, "unknown field 'model.dmi' in ModelConfig: did you mean 'dim'"),
        ("modle.dim", 3, "unknown field 'modle.dim' in TrainConfig: did you mean 'model'"),
        ("model.mixer.heads.x", 3, "'x' is below a plain value"),
        ("model", DataConfig(), "DataConfig is not a value of ModelConfig"),
        ("model.dim", DataConfig(), "DataConfig is not a value of int"),
        ("model.mixer", ModelConfig(), "ModelConfig is not a value of"),
        ("model", 3, "'model' is a group of fields; set one of them, e.g. model.vocab_size"),
    ],
)
def test_what_does_not_exist_is_named(path, value, said):
    with pytest.raises(ValueError, match=said):
        override(TrainConfig(), {path: value})


def test_a_mixer_may_be_given_as_it_is():
    mixer = SelfModifyingConfig(heads=2)
    assert override(TrainConfig(), {"model.mixer": mixer}).model.mixer is mixer


def test_a_text_of_a_command_line_keeps_its_blanks():
    change = lambda *items: override(TrainConfig(), parse_assignments(list(items)))
    assert change("sample_prompt=ROMEO:\n").sample_prompt == "ROMEO:\n"
    assert change("sample_prompt=\n\n").sample_prompt == "\n\n"
    assert change("sample_prompt=  a ").sample_prompt == "  a "
    assert change("data.path = None").data.path is None
    assert change("name = a").name == "a"
    other = change(" steps = 7 ", "optim.lr=1e-4\n", "data.reset= never ", "enough= None ")
    assert (other.steps, other.optim.lr, other.data.reset) == (7, 1e-4, "never")
    assert change("model.mixer= attention ", "tests= () ").model.mixer == AttentionConfig()
    with pytest.raises(ValueError, match="is not of the form name=value"):
        change("sample_prompt")


@pytest.mark.parametrize("field", ["seed", "data.seed"])
def test_seeds_are_not_negative(field):
    with pytest.raises(ValueError, match=f"{field} is -1; use 0"):
        override(TrainConfig(), {field: -1})
