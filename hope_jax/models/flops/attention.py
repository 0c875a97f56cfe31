"""Operations of attention, per token of one layer."""

from __future__ import annotations

from hope_jax.config import AttentionConfig, ModelConfig, SlidingWindowConfig


def _attention(config: ModelConfig, length: int) -> float:
    shared = config.mixer.groups / config.mixer.heads  # of keys and values
    projections = 2 * 2 * config.dim**2 * (1 + shared)
    seen = (length + 1) / 2  # keys that a causal query sees, on average
    return projections + 2 * 2 * config.dim * seen


def sliding_window(config: ModelConfig, length: int) -> float:
    projections = 4 * 2 * config.dim**2
    full = min(length, config.mixer.window)  # tokens whose window reaches the start
    seen = (full * (full + 1) / 2 + (length - full) * full) / length
    return projections + 2 * 2 * config.dim * seen


COUNTS = {
    AttentionConfig: _attention,
    SlidingWindowConfig: sliding_window,
}
