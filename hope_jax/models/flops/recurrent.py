"""Operations of mixers without a parallel form, per token of one layer."""

from __future__ import annotations

from hope_jax.config import LSTMConfig, ModelConfig, SRWMConfig


def _lstm(config: ModelConfig, length: int) -> float:
    del length
    mixer, dim = config.mixer, config.dim
    units = mixer.units(dim)
    # four gates of the input and of the head's units, and the output projection
    return 2 * units * (4 * dim + 4 * units // mixer.heads + dim)


def _srwm(config: ModelConfig, length: int) -> float:
    del length
    mixer, dim = config.mixer, config.dim
    size = dim // mixer.heads
    # the matrix meets the input, and the difference of query and key
    return 2 * dim**2 + mixer.heads * 2 * 2 * size * (3 * size + 4)


COUNTS = {
    LSTMConfig: _lstm,
    SRWMConfig: _srwm,
}
