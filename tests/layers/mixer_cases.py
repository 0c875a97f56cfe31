"""A small configuration of every mixer, and what its tests have to know of it.

A new mixer is one line in CASES; see `tests/layers/test_every_mixer.py` for what is asked.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from hope_jax.config import (
    AttentionConfig,
    CombaConfig,
    DeltaNetConfig,
    DLAConfig,
    GatedDeltaNetConfig,
    LinearAttentionConfig,
    LSTMConfig,
    MambaConfig,
    MemoraConfig,
    MixerConfig,
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

DIM = 16  # width of the model in these tests


@dataclasses.dataclass(frozen=True)
class Case:
    """A mixer in tests.

    Attributes:
      config: small, with chunks that are shorter than the tests' sequences.
      matrices: weights that update rules for matrices treat as such; none else.
      memory: of a state, what `writes=False` must leave alone; None: no memory that learns.
      speed: a field that changes speed and not the result, with values to try.
      grows: whether the state grows with what was read.
      attends: whether it sees the last tokens themselves beside its memory.
      copying_steps: training steps in which it learns to copy eight tokens.
      rounding: largest difference between gradients of one program compiled in two ways.
        Normalised reads of next to nothing make roundings larger, and so do more layers.
    """

    config: MixerConfig
    matrices: frozenset[str]
    memory: Callable[[Any], Any] | None = None
    speed: tuple[str, tuple[int, ...]] | None = None
    grows: bool = False
    attends: bool = False
    copying_steps: int = 400
    rounding: float = 3e-5


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _within(part: str, text: str) -> frozenset[str]:
    return frozenset(f"{part}/{name}" for name in text.split())


def _matrix(config: MixerConfig, matrices: str, rounding: float = 3e-5) -> Case:
    """A matrix memory."""
    memory = lambda state: state.memory_BHKV
    speed = ("chunk", (1, 3, 64))
    return Case(config, _names(matrices), memory, speed, rounding=rounding)


def _ttt(config: MixerConfig, matrices: str) -> Case:
    return Case(config, _names(matrices), lambda state: state.inner.layers)


def _deep(config: MixerConfig, matrices: str, attends: bool = False, steps: int = 400) -> Case:
    """A deep memory of two layers."""

    def memory(state):
        state = state.memory
        return getattr(state, "memory", state).weights.running

    return Case(
        config,
        _names(f"{matrices} memory_0 memory_1"),
        memory,
        attends=attends,
        copying_steps=steps,
    )


_MAMBA = "w_expand w_expand_gate w_select w_step w_contract"
_QKV = "w_q w_k w_v w_out"
_ATTENTION = "w_query w_key w_value w_out"
_BACKBONE = "w_query_key w_value w_gate w_out"
# Weights changed in the last place change the embedding's gradient by as much.
_GATED = 3e-4
CASES = {
    "attention": Case(
        AttentionConfig(heads=4, kv_heads=2, bias=True, block=4),
        _names(_ATTENTION),
        None,
        ("block", (3, 64)),
        True,
    ),
    "comba": _matrix(CombaConfig(heads=2, chunk=4), f"{_QKV} w_gate", _GATED),
    "delta_net": _matrix(DeltaNetConfig(heads=2, chunk=4), _QKV),
    "dla": _deep(DLAConfig(heads=2, chunk=4), f"{_QKV} w_gate"),
    "gated_delta_net": _matrix(GatedDeltaNetConfig(heads=2, chunk=4), f"{_QKV} w_gate", _GATED),
    "linear_attention": _matrix(LinearAttentionConfig(heads=2, chunk=4), _QKV),
    "lstm": Case(LSTMConfig(heads=2), _names("w_input w_recurrent w_out"), copying_steps=800),
    "mamba": Case(
        MambaConfig(state_size=4, chunk=4),
        _names(_MAMBA),
        lambda state: state.memory_BNE,
        ("chunk", (1, 3, 64)),
        copying_steps=2400,
    ),
    "memora": Case(
        MemoraConfig(heads=2, chunk=4, rate_rank=4),
        _names(f"{_QKV} w_gate w_rate_in w_rate_out memory_in memory_out"),
        lambda state: [state.memory.logits, [w.u_BHCO for w in state.memory.written]],
        rounding=2e-4,  # rounding the weights changes the embedding's gradient by up to 8e-5
    ),
    "retnet": _matrix(RetNetConfig(heads=2, chunk=4), f"{_QKV} w_gate"),
    "rwkv7": _matrix(
        RWKV7Config(heads=2, chunk=4, decay_rank=4, rate_rank=4, gate_rank=6),
        "w_r w_k w_v w_out w_decay_in w_decay_out w_rate_in w_rate_out w_gate_in w_gate_out",
    ),
    "samba": Case(
        SambaConfig(heads=2, window=3, block=4, state_size=4, chunk=4),
        _within("mamba", _MAMBA)
        | _within("mlp", "w_in w_gate w_out")
        | _within("attention", _ATTENTION),
        lambda state: state.mamba.memory_BNE,
        ("chunk", (1, 3, 64)),
        attends=True,
        copying_steps=1600,
    ),
    "self_modifying": Case(
        SelfModifyingConfig(heads=2, chunk=4, rate_hidden=4),
        _names("w_q w_gate w_out memory_in memory_value"),
        lambda state: [group.running for group in state.recurrent.groups],
    ),
    "sliding_window": Case(
        SlidingWindowConfig(heads=2, window=6, block=4),
        _names(_ATTENTION),
        None,
        ("block", (3, 64)),
    ),
    "titans": _deep(TitansConfig(heads=2, chunk=4), f"{_QKV} w_gate"),
    "titans_mac": _deep(
        TitansMACConfig(heads=2, chunk=4, persistent=2),
        f"{_QKV} w_query w_key w_value",
        attends=True,
        steps=2400,
    ),
    "titans_mag": _deep(
        TitansMAGConfig(heads=2, chunk=4, window=6, persistent=2, block=4),
        f"{_QKV} w_query w_key w_value",
        attends=True,
    ),
    "titans_mal": _deep(
        TitansMALConfig(heads=2, chunk=4, window=6, persistent=2, block=4),
        f"{_QKV} w_gate w_memory_out w_query w_key w_value",
        attends=True,
    ),
    "srwm": Case(
        SRWMConfig(heads=2, chunk=4),
        _names("memory_y memory_q memory_k w_out"),
        lambda state: state.memory_BHKO,
        ("chunk", (1, 3, 64)),
        copying_steps=1200,
    ),
    "ttt_linear": _ttt(TTTLinearConfig(heads=2, chunk=4), f"{_BACKBONE} memory_in"),
    "ttt_mlp": _ttt(TTTMLPConfig(heads=2, chunk=4), f"{_BACKBONE} memory_in memory_out"),
}
