"""The outer optimizer that `make` builds."""

import jax
import numpy as np
import optax
import pytest

from hope_jax.config import RULE_CONFIGS, TrainConfig, override
from hope_jax.nested.paths import flatten
from hope_jax.optim import make


def config(**changes):
    base = {"optim.warmup": 2, "steps": 8, "model.cms.periods": (1, 2, 4)}
    return override(TrainConfig(), {**base, **changes})


@pytest.fixture(scope="module")
def params():
    def normal(*shape):
        return jax.random.normal(jax.random.key(0), shape)

    level = {"norm_scale": normal(2, 3), "w_in": normal(2, 3, 4), "w_out": normal(2, 4, 3)}
    return {
        "embed": {"table": normal(5, 3)},
        "final_norm": {"scale": normal(3)},
        "blocks": {
            "mixer": {"w_query": normal(2, 3, 3), "gate_bias": normal(2, 3)},
            "cms": {f"period_{p}": level for p in (1, 2, 4)},
        },
    }


def test_levels_are_named_by_period_and_hold_their_own_part(params):
    parts = make(config(), params).split(params)
    assert list(parts) == ["period_1", "period_2", "period_4"]
    cms = params["blocks"]["cms"]
    jax.tree.map(
        np.testing.assert_array_equal,
        parts["period_4"],
        {"blocks": {"cms": {"period_4": cms["period_4"]}}},
    )
    assert set(parts["period_1"]) == {"embed", "final_norm", "blocks"}
    assert set(parts["period_1"]["blocks"]["cms"]) == {"period_1"}


def test_a_single_level_is_optax_adamw_with_clipping_and_mask(params):
    one = config(**{"model.cms.periods": (1,), "optim.clip": 0.5, "optim.schedule": "constant"})
    one = override(one, {"optim.warmup": 0})
    levels = make(one, params)
    plain = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(
            one.optim.lr,
            b1=one.optim.b1,
            b2=one.optim.b2,
            weight_decay=one.optim.weight_decay,
            mask={
                "embed": {"table": True},
                "final_norm": {"scale": False},
                "blocks": {
                    "mixer": {"w_query": True, "gate_bias": False},
                    "cms": {
                        f"period_{p}": {"norm_scale": False, "w_in": True, "w_out": True}
                        for p in (1, 2, 4)
                    },
                },
            },
        ),
    )
    state, plain_state, reference = levels.init(params), plain.init(params), params
    step, plain_update = jax.jit(levels.step), jax.jit(plain.update)
    for _ in range(3):
        params, state, _ = step(params, state, params)
        updates, plain_state = plain_update(reference, plain_state, reference)
        reference = optax.apply_updates(reference, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), params, reference)


def run(levels, params, steps):
    """Parameters after every step, each step's gradient being the parameters."""
    state, step, history = levels.init(params), jax.jit(levels.step), [params]
    for _ in range(steps):
        params, state, _ = step(params, state, params)
        history.append(params)
    assert step._cache_size() == 1
    return history, state


def test_every_level_counts_its_own_updates(params):
    history, state = run(make(config(), params), params, 8)
    counts = {name: int(level.opt_state[0].count) for name, level in state.levels.items()}
    assert counts == {"period_1": 8, "period_2": 4, "period_4": 2}
    cms = [step["blocks"]["cms"] for step in history]
    for before, after, step in zip(cms, cms[1:], range(1, 9), strict=False):
        for period in (1, 2, 4):
            level = f"period_{period}"
            same = np.array_equal(before[level]["w_in"], after[level]["w_in"])
            assert same == (step % period != 0)


def test_factor_of_a_period_scales_its_updates_only(params):
    plain, _ = run(make(config(), params), params, 4)
    half, _ = run(
        make(config(**{"optim.levels": [{"period": 4, "lr_factor": 0.5}]}), params), params, 4
    )
    change = jax.tree.map(lambda a, b: a - b, plain[-1], params)
    halved = jax.tree.map(lambda a, b: a - b, half[-1], params)
    ratio = jax.tree.map(lambda h, c: np.mean(h / c), halved["blocks"], change["blocks"])
    np.testing.assert_allclose(ratio["cms"]["period_4"]["w_in"], 0.5, rtol=1e-4)
    np.testing.assert_allclose(ratio["cms"]["period_2"]["w_in"], 1.0, rtol=1e-4)


def test_nested_cms_returns_to_initial_values_that_the_slower_level_owns(params):
    levels = make(config(**{"model.cms.variant": "nested"}), params)
    assert [level.name for level in levels.levels] == [
        "period_1",
        "cms_period_1",
        "period_2",
        "period_4",
    ]
    history, state = run(levels, params, 4)
    assert set(levels.split(params)["period_1"]["blocks"]) == {"mixer"}
    anchors = {name: level.anchor for name, level in state.levels.items() if level.anchor}
    assert set(anchors) == {"period_2", "period_4"}
    for name, fast in (("period_2", "period_1"), ("period_4", "period_2")):
        jax.tree.map(
            np.testing.assert_array_equal,
            anchors[name]["blocks"]["cms"][fast],
            history[-1]["blocks"]["cms"][fast],
        )
    assert not np.array_equal(history[-1]["embed"]["table"], params["embed"]["table"])


def test_cms_without_a_level_of_period_1(params):
    levels = make(config(**{"model.cms.periods": (2, 4)}), params)
    assert [(level.name, level.period) for level in levels.levels] == [
        ("period_1", 1),
        ("period_2", 2),
        ("period_4", 4),
    ]


def test_periods_that_do_not_divide_are_refused(params):
    with pytest.raises(ValueError, match="'period_4'.*not a multiple of 3.*use 3 or 6"):
        make(config(**{"model.cms.periods": (1, 3, 4)}), params)


def test_unknown_period_is_refused(params):
    with pytest.raises(ValueError, match="levels names period 3.*periods are 1, 2, 4"):
        make(config(**{"optim.levels": [{"period": 3}]}), params)


def test_model_without_the_levels_of_the_config_is_refused(params):
    with pytest.raises(ValueError, match="'period_8' has no parameters"):
        make(config(**{"model.cms.periods": (1, 2, 4, 8)}), params)


RULES = {
    "optim.levels": [
        {"period": 2, "rule": "muon", "clip": 0.1, "schedule": "constant", "warmup": 0},
        {"period": 4, "rule": {"type": "m3", "period": 2}, "weight_decay": 0.0},
    ]
}


def test_levels_have_rules_schedules_and_clipping_of_their_own(params):
    levels = make(config(**RULES), params)
    history, state = run(levels, params, 8)
    for name, part in levels.split(history[-1]).items():
        before = levels.split(params)[name]
        jax.tree.map(
            lambda a, b: np.testing.assert_raises(AssertionError, same, a, b), part, before
        )
    kinds = {
        name: sorted({type(s).__name__ for s in jax.tree.leaves(x.opt_state, is_leaf=_is_rule)})
        for name, x in state.levels.items()
    }
    assert "MuonState" in kinds["period_2"] and "M3State" in kinds["period_4"]
    assert not {"MuonState", "M3State"} & set(kinds["period_1"])
    # What Muon moves per update is its rate: constant on level 2, which has no warm-up.
    w = [h["blocks"]["cms"]["period_2"]["w_in"] for h in history]
    steps = [np.sqrt(np.mean((w[i + 2] - w[i]) ** 2)) for i in (0, 2, 4, 6)]
    np.testing.assert_allclose(steps, steps[0], rtol=0.05)


def same(a, b):
    np.testing.assert_array_equal(a, b)


def _is_rule(x):
    return type(x).__name__ in ("MuonState", "M3State", "ScaleByAdamState")


@pytest.mark.parametrize(
    "rule",
    [
        *({"type": name} for name in RULE_CONFIGS),
        {"type": "deep_momentum", "output": "newton_schulz"},
        {"type": "delta_momentum", "value": "identity", "step": "proximal", "side": "output"},
        {"type": "m3", "second_moment": "none", "period": 2},
    ],
    ids=str,
)
def test_every_rule_moves_matrices_by_its_own_step_and_the_rest_by_adamw(params, rule):
    shared = {"model.cms.periods": (1,), "optim.weight_decay": 0.0, "optim.warmup": 0}
    plain, _ = run(make(config(**shared), params), params, 3)
    levels = make(config(**shared, **{"optim.rule": rule}), params)
    history, _ = run(levels, params, 3)
    found, adamw = flatten(history[-1]), flatten(plain[-1])
    for path in ("embed/table", "final_norm/scale", "blocks/mixer/gate_bias"):
        np.testing.assert_allclose(found[path], adamw[path], rtol=1e-5)
    moved = found["blocks/cms/period_1/w_in"] - flatten(params)["blocks/cms/period_1/w_in"]
    assert np.isfinite(moved).all() and np.any(moved)
    same_as_adamw = np.allclose(
        found["blocks/cms/period_1/w_in"], adamw["blocks/cms/period_1/w_in"]
    )
    assert same_as_adamw == (rule["type"] == "adamw")
