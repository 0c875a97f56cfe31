"""Operations of inner models that are trained as they are read, per token of one layer."""

from __future__ import annotations

from hope_jax.config import MemoraConfig, ModelConfig, TTTLinearConfig, TTTMLPConfig


def _ttt(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    size, chunk = dim // mixer.heads, min(mixer.chunk, length)
    hidden = None
    if isinstance(mixer, TTTMLPConfig):
        hidden = 4 * size if mixer.hidden is None else mixer.hidden
    layers = [(size, hidden), (hidden, size)] if hidden else [(size, size)]
    per_head = 0
    for index, (inputs, outputs) in enumerate(layers):
        # the key, the query, the step of the weights, and the gradient's way back
        products = 3 + (index > 0)
        per_head += products * 2 * inputs * outputs + 2 * chunk * (inputs + outputs)
    return 4 * 2 * dim**2 + 2 * dim * mixer.heads + mixer.heads * per_head


def _memora(config: ModelConfig, length: int) -> float:
    mixer, dim = config.mixer, config.dim
    heads, size, chunk = mixer.heads, dim // mixer.heads, min(mixer.chunk, length)
    hidden = mixer.hidden_size(dim)
    # of both layers: the key, the query, the gradient's way back through one, the step
    products = 2 + 2 + 1 + 2 + 3 / chunk  # the lag token has a key and a way back too
    per_head = products * 2 * size * hidden
    if mixer.read == "linear":
        per_head += 2 * 2 * chunk * (size + hidden)
    values = 4 if mixer.gate == "none" else 5
    gates = mixer.heads  # retention
    if mixer.rate_rank is None:
        gates += mixer.heads
    else:
        gates += 2 * mixer.rate_rank
    return values * 2 * dim**2 + 2 * dim * gates + heads * per_head


COUNTS = {
    MemoraConfig: _memora,
    TTTLinearConfig: _ttt,
    TTTMLPConfig: _ttt,
}
