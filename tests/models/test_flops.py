"""Counted operations equal the matrix products of the program that is traced."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    CombaConfig,
    DeltaNetConfig,
    DLAConfig,
    GatedDeltaNetConfig,
    InContextConfig,
    LinearAttentionConfig,
    LSTMConfig,
    MambaConfig,
    MemoraConfig,
    ModelConfig,
    RetNetConfig,
    RWKV7Config,
    SambaConfig,
    SelfModifyingConfig,
    SlidingWindowConfig,
    SRWMConfig,
    TitansConfig,
    TitansMACConfig,
    TitansMAGConfig,
    TitansMALConfig,
    TTTLinearConfig,
    TTTMLPConfig,
)
from hope_jax.models import LanguageModel, abstract_params, flops_per_token
from hope_jax.models.flops import flops_of_next_token
from hope_jax.models.in_context import in_context_losses


def matrix_flops(jaxpr) -> float:
    """Two per multiply-add of every matrix product, with loops multiplied out."""
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            depth = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
            total += 2 * depth * math.prod(eqn.outvars[0].aval.shape)
        inner = [
            getattr(value, "jaxpr", value)
            for parameter in eqn.params.values()
            for value in (parameter if isinstance(parameter, tuple) else (parameter,))
            if hasattr(getattr(value, "jaxpr", value), "eqns")
        ]
        loops = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        total += loops * sum(map(matrix_flops, inner))
    return total


def traced(config, length):
    params = abstract_params(config)
    tokens_BT = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def forward(params, tokens_BT):
        return LanguageModel(config).apply({"params": params}, tokens_BT).logits_BTW

    jaxpr = jax.make_jaxpr(forward)(params, tokens_BT)
    return matrix_flops(jaxpr.jaxpr) / length


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rule": "gd", "read": "chunk_start", "gate": False},
        {"momentum": "titans", "memory_chunk": 32, "adaptive": ("k", "q", "alpha")},
        {"memory": "linear", "scope": "input_only", "targets": "shared"},
        {"value_expansion": 2, "adaptive": ("v", "eta")},
        {"adaptive": (), "scope": "input_only", "retention": "none"},
        {"decay_to": "zero"},
        {"decay_to": "zero", "scope": "input_only", "memory_chunk": 32},
        {"momentum": "titans", "rule": "gd", "decay_to": "zero"},
        {"momentum": "titans", "rule": "gd", "memory": "linear"},
        {"momentum": "titans", "scope": "input_only"},
        {"momentum": "titans", "targets": "shared"},
        {"hidden_norm": "none", "value_expansion": 2},
        {"hidden_norm": "none", "rule": "gd"},
    ],
)
def test_self_modifying(changes):
    mixer = SelfModifyingConfig(heads=2, chunk=16, **changes)
    cms = CMSConfig(periods=(1, 4), hidden=48)
    config = ModelConfig(vocab_size=64, dim=64, depth=3, mixer=mixer, cms=cms)
    assert flops_per_token(config, 64).forward == pytest.approx(traced(config, 64), rel=0.03)


@pytest.mark.parametrize("length", [8, 64])  # shorter and longer than the chunk
@pytest.mark.parametrize(
    "mixer",
    [
        LinearAttentionConfig(heads=2, chunk=16),
        LinearAttentionConfig(heads=2, chunk=16, normaliser="rms"),
        RetNetConfig(heads=2, chunk=16),
        RetNetConfig(heads=2, chunk=16, value_expansion=1.5, gate="none"),
        DeltaNetConfig(heads=2, chunk=16),
        GatedDeltaNetConfig(heads=2, chunk=16, conv=0),
        CombaConfig(heads=2, chunk=16),
        RWKV7Config(heads=2, chunk=16, gate_rank=24),
    ],
)
def test_outer_product_memories(mixer, length):
    cms = CMSConfig(hidden=48)
    config = ModelConfig(vocab_size=64, dim=64, depth=3, mixer=mixer, cms=cms)
    want = pytest.approx(traced(config, length), rel=0.02)
    assert flops_per_token(config, length).forward == want


def test_attention_at_one_token():
    """There is one key then; longer sequences add the average number of keys seen."""
    cms = CMSConfig(hidden=48, activation="gelu")
    config = ModelConfig(vocab_size=64, dim=32, depth=3, mixer=AttentionConfig(), cms=cms)
    assert flops_per_token(config, 1).forward == traced(config, 1)
    more = flops_per_token(config, 9).mixer - flops_per_token(config, 1).mixer
    assert more == 3 * 4 * 32 * 4  # depth, two products of width 32, four more keys


def test_a_window_bounds_the_cost_of_a_token():
    cms = CMSConfig(hidden=48, activation="gelu")
    mixer = SlidingWindowConfig(window=4)
    config = ModelConfig(vocab_size=64, dim=32, depth=3, mixer=mixer, cms=cms)
    assert flops_per_token(config, 1).forward == traced(config, 1)
    # 1, 2, 3 and then three times 4 keys, where one token sees 1
    more = flops_per_token(config, 6).mixer - flops_per_token(config, 1).mixer
    assert more == 3 * 4 * 32 * (18 / 6 - 1)


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize("mixer", [AttentionConfig(), SlidingWindowConfig(window=4)])
def test_the_next_token_sees_all_before_it(mixer, before):
    """Written out, because a window is computed in whole blocks."""
    config = ModelConfig(vocab_size=64, dim=32, depth=3, mixer=mixer, cms=CMSConfig(hidden=48))
    keys = before + 1 if isinstance(mixer, AttentionConfig) else min(before + 1, 4)
    flops = flops_of_next_token(config, before)
    assert flops.mixer == pytest.approx(3 * (4 * 2 * 32**2 + 4 * 32 * keys))
    assert (flops.cms, flops.head) == (3 * 6 * 32 * 48, 2 * 32 * 64)


@pytest.mark.parametrize(
    "mixer",
    [
        TTTLinearConfig(heads=2, chunk=16),
        MemoraConfig(heads=2, chunk=16, rate_rank=8),
        MemoraConfig(heads=2, chunk=8, hidden=24, rate_rank=None, read="lag", gate="none"),
        TTTMLPConfig(heads=2, chunk=8, hidden=48, backbone="transformer"),
        SRWMConfig(heads=2),
        LSTMConfig(),
        LSTMConfig(heads=2, hidden=96),
    ],
)
def test_inner_models(mixer):
    config = ModelConfig(vocab_size=64, dim=64, depth=3, mixer=mixer, cms=CMSConfig(hidden=48))
    assert flops_per_token(config, 64).forward == pytest.approx(traced(config, 64), rel=1e-6)


@pytest.mark.parametrize(
    "mixer",
    [
        TitansConfig(heads=2, chunk=16),
        TitansConfig(heads=2, chunk=16, layers=3, hidden=48, gate="none"),
        DLAConfig(heads=2, chunk=16),
        TitansMACConfig(heads=2, chunk=16, persistent=3),
    ],
)
def test_deep_memories(mixer):
    config = ModelConfig(vocab_size=64, dim=64, depth=3, mixer=mixer, cms=CMSConfig(hidden=48))
    assert flops_per_token(config, 64).forward == pytest.approx(traced(config, 64), rel=0.01)


@pytest.mark.parametrize("config", [TitansMAGConfig, TitansMALConfig])
def test_a_memory_beside_attention(config):
    """At one token; where there are more, blocks are counted above."""
    mixer = config(heads=2, chunk=1, persistent=3)
    config = ModelConfig(vocab_size=64, dim=64, depth=3, mixer=mixer, cms=CMSConfig(hidden=48))
    assert flops_per_token(config, 1).forward == pytest.approx(traced(config, 1), rel=0.01)


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
def test_selective_scans(activation):
    """Of one token, because attention computes whole blocks."""
    cms = CMSConfig(hidden=48, activation=activation)
    for mixer in (MambaConfig(), SambaConfig(heads=2)):
        config = ModelConfig(vocab_size=64, dim=64, depth=3, mixer=mixer, cms=cms)
        assert flops_per_token(config, 1).forward == pytest.approx(traced(config, 1), rel=1e-6)


@pytest.mark.parametrize(
    ("periods", "variant", "activation"),
    [
        ((1,), "sequential", "swiglu"),
        ((1, 4), "sequential", "gelu"),
        ((1, 4), "independent", "swiglu"),
    ],
)
def test_learning_within_a_text(periods, variant, activation):
    in_context = InContextConfig(chunks=(8,) * len(periods), blocks=1)
    cms = CMSConfig(periods, 48, variant, activation, in_context)
    config = ModelConfig(vocab_size=64, dim=32, depth=3, mixer=AttentionConfig(), cms=cms)
    params = abstract_params(config)
    tokens_BT = jax.ShapeDtypeStruct((1, 16), jnp.int32)

    def read(params, tokens_BT):
        return in_context_losses(config, params, tokens_BT, tokens_BT)[0]

    found = matrix_flops(jax.make_jaxpr(read)(params, tokens_BT).jaxpr) / 16
    flops = flops_per_token(config, 16)
    assert found - traced(config, 16) == flops.inner
    assert flops.training == 3 * flops.reading


def test_training_costs_three_forward_passes():
    flops = flops_per_token(ModelConfig(mixer=AttentionConfig()), 8)
    assert flops.training == 3 * (flops.mixer + flops.cms + flops.head)


def test_a_mixer_that_nobody_counted_is_told():
    @dataclasses.dataclass(frozen=True)
    class Own(AttentionConfig):
        type = "own"

    with pytest.raises(ValueError, match="'own' are not counted; add Own to the COUNTS"):
        flops_per_token(ModelConfig(mixer=Own()), 8)
