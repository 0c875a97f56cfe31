"""Sequence mixers by name.

A mixer is a Linen module `mixer(x_BTD, state, reset_BT, writes=True) -> (y_BTD, state)`.
`state=None` is the fresh state; the state returned lets reading go on after the last token.
Its input is normalised, unless the class says `takes_stream`: then it is the residual stream,
for a mixer of several layers that have norms of their own.
A new mixer is one configuration class in the union of `hope_jax.config.mixers`, one file, one
line here, and a count of its operations in `hope_jax.models.flops`; in a notebook the class
itself may stand here (`docs/mixers.md`).
"""

from __future__ import annotations

import importlib

import flax.linen as nn

from hope_jax.config import ModelConfig

MIXERS: dict[str, str | type[nn.Module]] = {
    "attention": "hope_jax.layers.attention:Attention",
    "comba": "hope_jax.layers.delta_net:DeltaNet",
    "delta_net": "hope_jax.layers.delta_net:DeltaNet",
    "dla": "hope_jax.layers.titans:Titans",
    "gated_delta_net": "hope_jax.layers.delta_net:DeltaNet",
    "linear_attention": "hope_jax.layers.linear_attention:LinearAttention",
    "mamba": "hope_jax.layers.mamba:Mamba",
    "memora": "hope_jax.layers.memora:Memora",
    "retnet": "hope_jax.layers.retnet:RetNet",
    "samba": "hope_jax.layers.samba:Samba",
    "lstm": "hope_jax.layers.lstm:LSTM",
    "rwkv7": "hope_jax.layers.rwkv7:RWKV7",
    "self_modifying": "hope_jax.layers.self_modifying:SelfModifyingTitans",
    "sliding_window": "hope_jax.layers.sliding_window:SlidingWindowAttention",
    "titans": "hope_jax.layers.titans:Titans",
    "titans_mac": "hope_jax.layers.titans_mac:TitansMAC",
    "titans_mag": "hope_jax.layers.titans_mag:TitansMAG",
    "titans_mal": "hope_jax.layers.titans_mal:TitansMAL",
    "srwm": "hope_jax.layers.srwm:SRWM",
    "ttt_linear": "hope_jax.layers.ttt:TTT",
    "ttt_mlp": "hope_jax.layers.ttt:TTT",
}


def make_mixer(config: ModelConfig, name: str | None = None) -> nn.Module:
    """Build the mixer that `config.mixer` configures; its module is imported here.

    Raises:
      ValueError: the mixer's type is not registered.
    """
    kind = config.mixer.type
    if kind not in MIXERS:
        raise ValueError(f"no mixer is registered as {kind!r}; known are {sorted(MIXERS)}")
    known = MIXERS[kind]
    if not isinstance(known, str):
        return known(config, name=name)
    module, _, cls = known.partition(":")
    return getattr(importlib.import_module(module), cls)(config, name=name)
