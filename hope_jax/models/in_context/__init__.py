"""A CMS that is updated while a text is read (Eq. 71 within the sequence).

The model is cut where the first fast weight is: at the CMS of the first block that adapts. What
lies below never sees a fast weight and reads the whole text at once. What lies above reads it
chunk by chunk: with the fast weights as they are, then the gradient of the chunk's loss with
respect to them, then a step of the levels that are due. The levels are those of
`hope_jax.nested`; a tick is a chunk of the fastest.

In a stack (section 7.3) every block's MLP is a level: `layers.fast_weights.moving` says which
blocks a level has, and `by_part` puts what the levels have in the order of the blocks again.

A document that begins inside a row begins with the slow weights: from its first token on, what
earlier documents added is out of sight, and it is gone at each level's next update.
"""

from hope_jax.models.in_context.fast import Fast, fresh_fast
from hope_jax.models.in_context.inner import inner_levels
from hope_jax.models.in_context.losses import in_context_losses
from hope_jax.models.in_context.reader import Reader
from hope_jax.models.in_context.slow_weights import with_slow_weights

__all__ = [
    "Fast",
    "Reader",
    "fresh_fast",
    "in_context_losses",
    "inner_levels",
    "with_slow_weights",
]
