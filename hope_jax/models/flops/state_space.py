"""Operations of selective state spaces, per token of one layer."""

from __future__ import annotations

from hope_jax.config import MambaConfig, ModelConfig, SambaConfig
from hope_jax.models.flops.attention import sliding_window
from hope_jax.models.flops.feed_forward import feed_forward


def _mamba(config: ModelConfig, length: int) -> float:
    """The scan itself is element-wise; only what surrounds it is counted."""
    del length
    mixer, dim = config.mixer, config.dim
    channels, rank = mixer.channels(dim), mixer.rank(dim)
    return 2 * channels * (3 * dim + 2 * rank + 2 * mixer.state_size)


def _samba(config: ModelConfig, length: int) -> float:
    mlp = feed_forward(config, config.cms_hidden)
    return _mamba(config, length) + mlp + sliding_window(config, length)


COUNTS = {
    MambaConfig: _mamba,
    SambaConfig: _samba,
}
