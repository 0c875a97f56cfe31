"""Floating-point operations of a model, by component, from its configuration alone.

Matrix products are counted, two operations per multiply-add; element-wise work, norms
and short convolutions are not. That is the convention of model FLOP utilisation, so
recomputation in the backward pass does not count either.
"""

from __future__ import annotations

import dataclasses

from hope_jax.config import ModelConfig
from hope_jax.layers.continuum import split_hidden
from hope_jax.models.flops import (
    attention,
    inner_models,
    linear,
    recurrent,
    self_modifying,
    state_space,
    titans,
)
from hope_jax.models.flops.feed_forward import feed_forward

_FAMILIES = (attention, linear, recurrent, self_modifying, state_space, inner_models, titans)
_MIXERS = {kind: count for family in _FAMILIES for kind, count in family.COUNTS.items()}


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations per token of one forward pass over a sequence, averaged over it."""

    mixer: float
    cms: float
    head: float

    @property
    def forward(self) -> float:
        """All components."""
        return self.mixer + self.cms + self.head

    @property
    def training(self) -> float:
        """Forward and backward; the backward pass costs twice the forward."""
        return 3 * self.forward


def flops_per_token(config: ModelConfig, length: int) -> Flops:
    """Operations per token for sequences of `length` tokens.

    Attention depends on the length; memories on the chunk instead.

    Raises:
      ValueError: nobody has counted the operations of this mixer.

    >>> from hope_jax.config import AttentionConfig
    >>> small = ModelConfig(dim=64, depth=2, mixer=AttentionConfig())
    >>> flops_per_token(small, 128).head
    32768.0
    """
    dim = config.dim
    hidden = sum(split_hidden(config.cms_hidden, len(config.cms.periods)))
    kind = type(config.mixer)
    if kind not in _MIXERS:
        raise ValueError(
            f"the operations of mixer {kind.type!r} are not counted; add {kind.__name__} to "
            "the COUNTS of a file in hope_jax/models/flops"
        )
    mixer = _MIXERS[kind](config, length)
    return Flops(
        mixer=float(config.depth * mixer),
        cms=float(config.depth * feed_forward(config, hidden)),
        head=float(2 * dim * config.vocab_rows),
    )
