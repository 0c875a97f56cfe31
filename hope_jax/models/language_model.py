"""The language model around every sequence mixer."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.struct
import jax

from hope_jax.config import ModelConfig
from hope_jax.layers.block import Block
from hope_jax.layers.embed import Embed
from hope_jax.layers.fast_weights import InContext
from hope_jax.layers.norm import RMSNorm
from hope_jax.layers.reconstruct import Reconstruct


@flax.struct.dataclass
class Output:
    """What the model returns."""

    # float32 scores `[B, T, vocab_rows]` of the next token, or with `reconstruct` of each token
    logits_BTW: jax.Array
    state: Any  # fast state of every layer, stacked; reading goes on from it


class LanguageModel(nn.Module):
    """Embedding, `depth` blocks, final norm and a head, tied to the embedding or not.

    HOPE, HOPE-Attention and Transformer++ are configurations of it: the mixer and the
    periods of the CMS.

    >>> from hope_jax.config import AttentionConfig
    >>> config = ModelConfig(dim=16, depth=2, mixer=AttentionConfig(heads=2))
    >>> model, tokens_BT = LanguageModel(config), jax.numpy.zeros((1, 3), int)
    >>> variables = model.init(jax.random.key(0), tokens_BT)
    >>> model.apply(nn.unbox(variables), tokens_BT).logits_BTW.shape
    (1, 3, 256)
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens_BT: jax.Array,
        state: Any = None,
        reset_BT: jax.Array | None = None,
        *,
        writes: bool = True,
    ) -> Output:
        """Read tokens and predict the next one after each.

        Args:
          tokens_BT: int32 token ids; any length, 0 included.
          state: fast state to go on from; None: fresh.
          reset_BT: True where a row forgets all fast state before reading that token.
          writes: False reads without writing to the memories.
        """
        config = self.config
        if config.cms.in_context.on:
            InContext(config, name="in_context")()  # used by hope_jax.models.in_context
        embed = Embed(config, name="embed")
        x_BTD = nn.with_logical_constraint(embed(tokens_BT), ("batch", "time", None))
        block = Block
        if config.remat == "block":
            # a scan body cannot be merged with its recomputation; unrolled blocks could be
            block = nn.remat(Block, prevent_cse=not config.scan_layers)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0, "stats": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=config.depth,
            unroll=1 if config.scan_layers else config.depth,
            metadata_params={nn.PARTITION_NAME: "layers"},
            # The check traces every block a second time, and nothing is broadcast here. Random
            # numbers are drawn otherwise without it, so that a seed's weights would be others.
            check_constancy_invariants=self.is_initializing(),
        )
        x_BTD, state = blocks(config, writes, name="blocks")(x_BTD, state, reset_BT)
        x_BTD = RMSNorm(config.norm_eps, name="final_norm")(x_BTD)
        if config.reconstruct:
            x_BTD = Reconstruct(config, name="reconstruct")(x_BTD)
        logits_BTW = nn.with_logical_constraint(embed.logits(x_BTD), ("batch", "time", "vocab"))
        return Output(logits_BTW, state)
