"""The outer optimizer that `make` builds."""

import jax
import numpy as np
import optax
import pytest

from hope_jax.config import TrainConfig, override
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


def test_unknown_period_in_level_lr_is_refused(params):
    with pytest.raises(ValueError, match="level_lr names period 3.*periods are 1, 2, 4"):
        make(config(**{"optim.level_lr": ((3, 0.5),)}), params)


def test_model_without_the_levels_of_the_config_is_refused(params):
    with pytest.raises(ValueError, match="'period_8' has no parameters"):
        make(config(**{"model.cms.periods": (1, 2, 4, 8)}), params)
