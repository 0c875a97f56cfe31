"""Samba as a sequence mixer: Mamba, a feed-forward layer, attention over a window."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax

from hope_jax.config import ModelConfig
from hope_jax.layers.continuum import Level
from hope_jax.layers.mamba import Mamba, MambaState
from hope_jax.layers.norm import RMSNorm
from hope_jax.layers.sliding_window import SlidingWindowAttention
from hope_jax.ops.window import WindowCache


@flax.struct.dataclass
class SambaState:
    """Fast states of the two layers that have one."""

    mamba: MambaState
    attention: WindowCache


class Samba(nn.Module):
    """A group of Samba layers but for the last feed-forward layer, which the block has.

    Ren et al. 2024, arXiv:2406.07522::

        x = x + mamba(norm(x));  x = x + mlp(norm(x));  x = x + attention(norm(x))

    The mixer takes the residual stream x and returns what these three add to it, so that the
    block, which adds that and goes on with its CMS, is exactly one group.
    """

    config: ModelConfig
    takes_stream = True

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: SambaState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, SambaState]:
        """Mix the residual stream `x_BTD`.

        Args:
          x_BTD: the residual stream, not normalised.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves Mamba's memory as it is; attention, which has no memory that
            learns, sees its window in any case.
        """
        config, mamba, attention = self.config, None, None
        if state is not None:
            mamba, attention = state.mamba, state.attention
        norm = lambda name, x_BTD: RMSNorm(config.norm_eps, name=name)(x_BTD)
        # both read the configuration of this mixer, which has their fields
        added_BTD, mamba = Mamba(config, name="mamba")(
            norm("mamba_norm", x_BTD), mamba, reset_BT, writes
        )
        mlp = Level(config, config.cms_hidden, name="mlp")
        added_BTD = added_BTD + mlp(x_BTD + added_BTD)
        mixed_BTD, attention = SlidingWindowAttention(config, name="attention")(
            norm("attention_norm", x_BTD + added_BTD), attention, reset_BT, writes
        )
        return added_BTD + mixed_BTD, SambaState(mamba, attention)
