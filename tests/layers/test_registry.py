"""Mixers are found by name."""

import dataclasses

import pytest

from hope_jax.config import AttentionConfig, ModelConfig
from hope_jax.layers.attention import Attention
from hope_jax.layers.registry import MIXERS, make_mixer


def test_the_configured_mixer_is_built():
    assert isinstance(make_mixer(ModelConfig(mixer=AttentionConfig())), Attention)


def test_an_unknown_name_lists_the_known():
    @dataclasses.dataclass(frozen=True)
    class Unknown(AttentionConfig):
        type = "unknown"

    with pytest.raises(ValueError, match="'unknown'.*attention"):
        make_mixer(ModelConfig(mixer=Unknown()))
    assert "attention" in MIXERS
