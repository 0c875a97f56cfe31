"""Shapes, logical axes and counts of parameters, without allocating them."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from hope_jax.config import AttentionConfig, CMSConfig, ModelConfig, SelfModifyingConfig
from hope_jax.layers import registry
from hope_jax.models import (
    abstract_params,
    abstract_state,
    count_params,
    init_params,
    param_shapes,
)

CONFIG = ModelConfig(
    vocab_size=37,
    dim=16,
    depth=3,
    mixer=AttentionConfig(heads=2),
    cms=CMSConfig(periods=(1, 2, 8), hidden=40, variant="independent"),
)


@pytest.fixture(scope="module")
def params():
    return init_params(CONFIG, jax.random.key(0))


def test_shapes_and_axes_describe_the_parameters(params):
    shapes = param_shapes(CONFIG)
    leaves = {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    assert {path: leaf.shape for path, leaf in leaves.items()} == {
        path: param.shape for path, param in shapes.items()
    }
    assert all(len(param.axes) == len(param.shape) for param in shapes.values())
    assert shapes["blocks/mixer/w_query"].axes == ("layers", "embed", "heads", "head_dim")
    assert shapes["embed/table"].axes == ("vocab", "embed")


def test_levels_live_under_their_period(params):
    assert {"period_1", "period_2", "period_8", "mix"} == set(params["blocks"]["cms"])
    widths = [params["blocks"]["cms"][f"period_{p}"]["w_in"].shape[-1] for p in (1, 2, 8)]
    assert widths == [14, 13, 13]


def test_counts_add_up(params):
    counts = count_params(CONFIG)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert counts.total == total
    assert sum(counts.by_component.values()) == total
    assert sum(counts.by_period.values()) == total
    # one level: norm, w_in, w_gate, w_out in each of three blocks
    assert counts.by_period[8] == 3 * (16 + 3 * 16 * 13)
    assert counts.by_component["embed"] == 37 * 16


@pytest.mark.parametrize(
    ("mixer", "first"),
    [
        (
            AttentionConfig(heads=2),
            {"w_query": [-0.5660240, 0.0382295], "w_out": [-0.1035947, 0.0485894]},
        ),
        (
            SelfModifyingConfig(heads=2),
            {"memory_in": [-0.7712183, 0.7144464], "conv_k": [1.5492086, 0.9955592]},
        ),
    ],
)
def test_a_seed_gives_the_weights_that_it_always_gave(mixer, first):
    """Of both layers the first value; what is told of a seed in results has to come again."""
    config = ModelConfig(dim=16, depth=2, mixer=mixer)
    blocks = init_params(config, jax.random.key(3))["blocks"]
    for name, expected in first.items():
        found = np.asarray(blocks["mixer"][name]).reshape(2, -1)[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    level = np.asarray(blocks["cms"]["period_1"]["w_in"])[:, 0, 0]
    np.testing.assert_allclose(level, [-0.3204446, -0.4719470], rtol=1e-5)


def test_layers_start_different(params):
    w_query = params["blocks"]["mixer"]["w_query"]
    assert abs(w_query[0] - w_query[1]).max() > 0.1
    assert w_query.std() == pytest.approx(16**-0.5, rel=0.1)


def test_nothing_is_allocated_for_shapes():
    huge = ModelConfig(vocab_size=10**6, dim=2**13, depth=100, mixer=AttentionConfig(heads=64))
    assert count_params(huge).total > 5e10
    assert all(
        isinstance(leaf, jax.ShapeDtypeStruct)
        for leaf in jax.tree.leaves(abstract_params(huge))
    )
    assert abstract_state(huge, batch=2, length=4).keys_BSHK.shape == (100, 2, 4, 64, 128)


def test_a_parameter_without_names_for_its_axes_is_named(monkeypatch):
    class Plain(nn.Module):
        config: ModelConfig

        @nn.compact
        def __call__(self, x_BTD, state=None, reset_BT=None, writes=True):
            return nn.Dense(x_BTD.shape[-1], name="out")(x_BTD), x_BTD[:, :0]

    monkeypatch.setitem(registry.MIXERS, "attention", Plain)
    config = ModelConfig(vocab_size=9, dim=8, mixer=AttentionConfig(heads=1, block=7))
    with pytest.raises(ValueError, match=r"mixer/out/(bias|kernel) has no names for its axes"):
        count_params(config)
