"""Floating-point operations of a model, by component, from its configuration alone.

Matrix products are counted, two operations per multiply-add; element-wise work, norms
and short convolutions are not. That is the convention of model FLOP utilisation, so
recomputation in the backward pass does not count either.
"""

from __future__ import annotations

import dataclasses

from hope_jax.config import ModelConfig
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
    """Operations per token of one forward pass over a sequence, averaged over it.

    `inner` are those of the gradients by which a CMS learns within the sequence, beyond the
    forward pass.
    """

    mixer: float
    cms: float
    head: float
    inner: float = 0.0
    through: bool = True  # whether training goes back through the inner gradients

    @property
    def forward(self) -> float:
        """All components, without learning."""
        return self.mixer + self.cms + self.head

    @property
    def reading(self) -> float:
        """Forward, and learning within the sequence."""
        return self.forward + self.inner

    @property
    def training(self) -> float:
        """Forward and backward; the backward pass costs twice what it goes back through."""
        return 3 * self.forward + (3 if self.through else 1) * self.inner


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
    kind = type(config.mixer)
    if kind not in _MIXERS:
        raise ValueError(
            f"the operations of mixer {kind.type!r} are not counted; add {kind.__name__} to "
            "the COUNTS of a file in hope_jax/models/flops"
        )
    mixer = _MIXERS[kind](config, length)
    cms = feed_forward(config, config.cms_hidden)
    head = float(2 * dim * config.vocab_rows)
    if config.reconstruct:
        head += 8 * dim**2  # two products, twice as wide between them
    how = config.cms.in_context
    return Flops(
        mixer=float(config.depth * mixer),
        cms=float(config.depth * cms),
        head=head,
        inner=float(_inner(config, mixer, cms, head)) if how.on else 0.0,
        through=how.outer == "through",
    )


def flops_of_next_token(config: ModelConfig, before: int) -> Flops:
    """Operations of one more token after `before` tokens, not averaged over a sequence.

    Attention then meets all of them, and not half of them as it does on average.

    Raises:
      ValueError: nobody has counted the operations of this mixer.

    >>> from hope_jax.config import AttentionConfig
    >>> small = ModelConfig(dim=64, depth=2, mixer=AttentionConfig())
    >>> more = [flops_of_next_token(small, n).mixer for n in (100, 101)]
    >>> more[1] - more[0]  # depth, two products of width 64, one more key
    512.0
    """
    average = flops_per_token(config, before + 1)
    if before == 0:
        return average
    shorter = flops_per_token(config, before).mixer
    # only mixers depend on the length
    return dataclasses.replace(average, mixer=(before + 1) * average.mixer - before * shorter)


def _inner(config: ModelConfig, mixer: float, cms: float, head: float) -> float:
    """Backward pass through all above the cut of `hope_jax.models.in_context`.

    Gradients of all weights of the levels and of the stream; of the head's input only. Mixers
    between adapting blocks count like levels, which is too much for their projections.
    """
    blocks = config.cms.in_context.adapting(config.depth)
    products = 2 if config.cms.activation == "swiglu" else 1
    widths = config.cms.split_hidden(config.cms_hidden)
    inwards = lambda hidden: 2 * products * config.dim * hidden
    if config.cms.in_context.loss == "local":
        # every level for itself: none hands a gradient on, and each has its view
        views = 2 * config.dim**2 * len(config.cms.periods)
        return blocks * (2 * cms - inwards(config.cms_hidden) + views)
    lowest = widths if config.cms.variant == "independent" else widths[:1]
    below = inwards(sum(lowest))  # of the gradient, which ends at the cut
    return 2 * blocks * cms - below + 2 * (blocks - 1) * mixer + head
