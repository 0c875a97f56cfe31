"""The two parts of a model that adapts, and a chunk of text through them."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.config import ModelConfig
from hope_jax.layers.attention import AttentionState, reserve
from hope_jax.layers.block import Block
from hope_jax.layers.embed import Embed
from hope_jax.layers.fast_weights import (
    FastWeights,
    LowRank,
    Weights,
    by_part,
    moving,
    moving_shapes,
)
from hope_jax.layers.linear import compute_dtype
from hope_jax.layers.norm import RMSNorm
from hope_jax.models.in_context.fast import placed
from hope_jax.models.in_context.inner import inner_levels
from hope_jax.models.losses import next_token_losses
from hope_jax.ops.own_gradient import plain_gradients, plain_gradients_wanted


@flax.struct.dataclass
class Part:
    """What a part of the model gave for a piece of text.

    Attributes:
      y: the stream at the cut `[B, T, D]` (below), or scores `[B, T, W]` (above).
      states: fast states of its mixers, stacked over blocks; None: it has none.
      stats: statistics of its mixers, stacked; None: it has none.
      local_BT: losses of its levels' own, of all tokens but the last; None: they have none.
    """

    y: jax.Array
    states: Any
    stats: Any
    local_BT: jax.Array | None = None


class Reader:
    """A model cut in two at the CMS of the first block that adapts.

    What lies below are the blocks that do not adapt and the mixer of the first that does; what
    lies above, the rest. Fast states are stacked over blocks or a tuple with one per block, as
    the parameters `blocks` are, those below and those above apart; None is the fresh state.

    Attributes:
      config: of the model.
      params: its slow weights.
      how: `config.cms.in_context`.
      levels: the levels within a text.
    """

    def __init__(self, config: ModelConfig, params: Any, writes: bool = True):
        self.config, self.params, self._writes = config, params, writes
        self.how = config.cms.in_context
        self._frozen = config.depth - self.how.adapting(config.depth)
        self._embed = Embed(config).bind({"params": params["embed"]})
        self.levels = inner_levels(config, params)

    def read_below(self, tokens_BT: jax.Array, states: Any, reset_BT: Any = None) -> Part:
        """The blocks that do not adapt, and the mixer of the first that does.

        Args:
          tokens_BT: int32 tokens.
          states: of these blocks.
          reset_BT: where the mixers forget; None: nowhere.
        """
        first = self._frozen
        inner, at_cut = _pick(states, slice(first)), _pick(states, first)
        weights = _pick(self.params["blocks"], slice(first))
        part = self._blocks(first, weights, self._embed(tokens_BT), inner, reset_BT)
        block = Block(self.config, self._writes, part="mixer")
        (x_BTD, at_cut), sown = block.apply(
            {"params": self._at_cut()}, part.y, at_cut, reset_BT, mutable=["stats"]
        )
        stats = _append(part.stats, sown.get("stats", {}))
        return Part(x_BTD, _append(part.states, at_cut), stats)

    def read_above(
        self, x_BTD: jax.Array, states: Any, fast: FastWeights, reset_BT: Any = None
    ) -> Part:
        """The CMS of the first block that adapts, the blocks after it, and the head.

        Args:
          x_BTD: the stream at the cut.
          states: of the blocks after the first that adapts.
          fast: `[blocks, ...]`, from `fast_weights`.
          reset_BT: where the mixers forget; None: nowhere.
        """
        config, first = self.config, self._frozen
        here, rest = (_of_blocks(fast, i) for i in (0, slice(1, None)))
        (x_BTD, _), sown = Block(config, part="cms").apply(
            {"params": self._at_cut()}, x_BTD, None, None, here, mutable=["local"]
        )
        local_BT = _added_up(sown)
        weights = _pick(self.params["blocks"], slice(first + 1, None))
        count = config.depth - first - 1
        part = self._blocks(count, weights, x_BTD, states, reset_BT, rest)
        if part.local_BT is not None:
            local_BT = local_BT + part.local_BT
        x_BTD = RMSNorm(config.norm_eps).apply({"params": self.params["final_norm"]}, part.y)
        return part.replace(y=self._embed.logits(x_BTD), local_BT=local_BT)

    def empty_states(self, batch: int, length: int) -> Any:
        """Fresh states above the cut, with room for a text of this length."""
        none_B0D = jnp.zeros((batch, 0, self.config.dim), compute_dtype(self.config))
        weights = _pick(self.params["blocks"], slice(self._frozen + 1, None))
        count = self.config.depth - self._frozen - 1
        states = self._blocks(count, weights, none_B0D, None, None).states
        is_cache = lambda s: isinstance(s, AttentionState)
        room = lambda s: reserve(s, length) if is_cache(s) else s
        return jax.tree.map(room, states, is_leaf=is_cache)

    def fast_weights(
        self, weights: Weights, moved: Weights | None = None, fresh_BT: jax.Array | None = None
    ) -> FastWeights:
        """What `read_above` takes.

        Args:
          weights: as `Fast` has them.
          moved: to be added to them, and alone what documents have that began since; zeros.
          fresh_BT: tokens of such documents.
        """
        whole = weights if moved is None else jax.tree.map(jnp.add, weights, moved)
        views = None
        if self.how.loss == "local":
            views = {level: self.params["in_context"][f"view_{level}"] for level in weights}
            views = by_part(self.config, views)
        begun = None if moved is None else by_part(self.config, self._factored(moved))
        added = by_part(self.config, self._factored(whole))
        return FastWeights(added, begun, fresh_BT, views)

    def slow(self, level: str) -> Any:
        """Slow matrices of a level in the blocks that have it."""
        names, where = moving_shapes(self.config)[level], moving(self.config)[level]
        blocks = _pick(self.params["blocks"], slice(self._frozen, None))
        if isinstance(blocks, tuple):
            blocks = [blocks[i] for i in where.blocks]
        elif self.how.stacked:
            blocks = [jax.tree.map(lambda w: w[np.array(where.blocks)], blocks)]
        else:
            blocks = [blocks]
        return [{name: block["cms"][where.part][name] for name in names} for block in blocks]

    def whole(self, weights: Weights) -> Weights:
        """Fast weights as the matrices that they add."""
        if self.how.rank is None:
            return weights
        return {
            level: {
                name: jnp.einsum("ndr,nbrf->nbdf", self._left(level, name), right)
                for name, right in matrices.items()
            }
            for level, matrices in weights.items()
        }

    def chunk_gradient(
        self,
        weights: Weights,
        x_BCD: jax.Array,
        states: Any,
        targets_BC: jax.Array,
        reset_BC: jax.Array | None = None,
        mixers_BC: jax.Array | None = None,
        counted_BC: jax.Array | None = None,
    ) -> tuple[Weights, jax.Array, Part]:
        """Gradient of a chunk's mean loss with respect to each text's fast weights.

        Only tokens of the last document of each row count.

        Args:
          weights: fast weights in sight.
          x_BCD: the chunk's stream at the cut.
          states: of the blocks above, at the chunk's start.
          targets_BC: the token after each.
          reset_BC: where documents begin; None: nowhere.
          mixers_BC: where the mixers forget; None: nowhere.
          counted_BC: tokens whose loss counts; None: all.

        Returns:
          The gradient, the next-token losses `[B, C]`, and the part above.
        """
        fresh_BC = None
        if reset_BC is not None:
            fresh_BC = jnp.cumsum(reset_BC, axis=1) > 0
            later_BC = jnp.cumsum(reset_BC[:, ::-1], axis=1)[:, ::-1] - reset_BC
            counted_BC = (later_BC == 0) & (True if counted_BC is None else counted_BC)

        def loss(moved):
            fast = self.fast_weights(weights, moved, fresh_BC)
            part = self.read_above(x_BCD, states, fast, mixers_BC)
            losses_BC = next_token_losses(part.y, targets_BC)
            own_BC = losses_BC
            if part.local_BT is not None:
                own_BC = jnp.pad(part.local_BT, ((0, 0), (0, 1)))
            counted = own_BC if counted_BC is None else jnp.where(counted_BC, own_BC, 0)
            return counted.sum() / losses_BC.shape[1], (losses_BC, part)

        zeros = placed(jax.tree.map(jnp.zeros_like, weights), self.how.rank)
        with plain_gradients():  # also for the first order: JAX looks at what it then drops
            grads, (losses_BC, part) = jax.grad(loss, has_aux=True)(zeros)
        if self.how.outer == "first_order":
            grads = jax.lax.stop_gradient(grads)
        return placed(grads, self.how.rank), losses_BC, part

    def _factored(self, weights: Weights) -> Weights:
        if self.how.rank is None:
            return weights
        return {
            level: {
                name: LowRank(self._left(level, name), right)
                for name, right in matrices.items()
            }
            for level, matrices in weights.items()
        }

    def _left(self, level: str, name: str) -> jax.Array:
        return self.params["in_context"][f"left_{level}_{name}"]

    def _at_cut(self) -> Any:
        return _pick(self.params["blocks"], self._frozen)

    def _blocks(
        self,
        count: int,
        blocks: Any,
        x_BTD: jax.Array,
        states: Any,
        reset_BT: jax.Array | None,
        fast: FastWeights | None = None,
    ) -> Part:
        """Whole blocks, one after the other; all arguments but the stream are of all blocks."""
        if not count:
            none = () if isinstance(blocks, tuple) else None
            return Part(x_BTD, none, none)
        block = Block(self.config, self._writes)

        def body(x_BTD, layer):
            weights, state, *stacked = layer
            here = None if fast is None else _with(fast, stacked)
            (x_BTD, state), sown = block.apply(
                {"params": weights}, x_BTD, state, reset_BT, here, mutable=["stats", "local"]
            )
            return x_BTD, (state, sown.get("stats", {}), _added_up(sown))

        if isinstance(blocks, tuple):
            layers = []
            for i, weights in enumerate(blocks):
                here = (None, None, None) if fast is None else _stacked(_of_blocks(fast, i))
                x_BTD, found = body(x_BTD, (weights, _pick(states, i), *here))
                layers.append(found)
            states, stats, local = zip(*layers, strict=True)
            return Part(x_BTD, states, stats, None if local[0] is None else sum(local))
        if self.config.remat == "block" and not plain_gradients_wanted():
            body = jax.checkpoint(body, prevent_cse=False)
        stacked = (None, None, None) if fast is None else _stacked(fast)
        x_BTD, (states, stats, local) = jax.lax.scan(body, x_BTD, (blocks, states, *stacked))
        return Part(x_BTD, states, stats, None if local is None else local.sum(axis=0))


def _stacked(fast: FastWeights) -> tuple[Any, ...]:
    """The fields that have an axis of blocks."""
    return fast.added, fast.begun, fast.views


def _with(fast: FastWeights, stacked: Any) -> FastWeights:
    added, begun, views = stacked
    return fast.replace(added=added, begun=begun, views=views)


def _of_blocks(fast: FastWeights, which: int | slice) -> FastWeights:
    return _with(fast, jax.tree.map(lambda x: x[which], _stacked(fast)))


def _added_up(sown: Any) -> jax.Array | None:
    """Losses of the levels' own, of all levels together."""
    losses = jax.tree.leaves(sown.get("local", {}))
    return sum(losses[1:], start=losses[0]) if losses else None


def _pick(blocks: Any, which: int | slice) -> Any:
    """Some of the blocks of a tuple, or of arrays that are stacked over blocks."""
    if isinstance(blocks, tuple):
        return blocks[which]
    return jax.tree.map(lambda x: x[which], blocks)


def _append(stacked: Any, one: Any) -> Any:
    """What there is of several blocks, and of one more."""
    if isinstance(stacked, tuple):
        return (*stacked, one)
    one = jax.tree.map(lambda x: x[None], one)
    if stacked is None:
        return one
    return jax.tree.map(lambda s, x: jnp.concatenate([s, x]), stacked, one)
