"""Titans with memory as context: a sequence mixer of attention in segments and a memory."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig, TitansMACConfig
from hope_jax.layers.deep_memory import (
    Tails,
    activated,
    empty_tails,
    memory_gates,
    memory_layers,
    memory_projections,
    recurrence_spec,
)
from hope_jax.layers.heads import FEW_TOKENS, convolved, count_writes, merge
from hope_jax.layers.linear import constant, einsum
from hope_jax.layers.norm import rms_norm
from hope_jax.layers.titans_mag import gated_by_memory
from hope_jax.layers.window import attention_projections, persistent_keys
from hope_jax.ops.chunks import Slots, initial_weights
from hope_jax.ops.conv import causal_conv
from hope_jax.ops.deep_memory import Part, heads_first
from hope_jax.ops.deep_memory import Tokens as MemoryTokens
from hope_jax.ops.memory_as_context import (
    Context,
    MemoryAsContextState,
    Tokens,
    read_by_segment,
    read_by_token,
)
from hope_jax.ops.recompute import recomputed
from hope_jax.ops.rope import rope


@flax.struct.dataclass
class TitansMACState:
    """Fast state of one layer.

    Attributes:
      memory: the memory and the open segment.
      tail_BKD: the last inputs of the convolution of what the memory is asked.
    """

    memory: MemoryAsContextState
    tail_BKD: jax.Array


class TitansMAC(nn.Module):
    """Attention in segments, with what a deep memory knows about them as context.

    Behrouz et al. 2025, arXiv:2501.00663, section 4.1; the recurrence and what is said there
    that the paper leaves open are in `hope_jax.ops.memory_as_context`. What is retrieved is
    normalised per head before it becomes keys and values. The memory is asked before
    attention and read after it with the same projection, of the mixer's input and of
    attention's output. The output is gated as with memory as a gate.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: TitansMACState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, TitansMACState]:
        """Attend within segments, and write to the memory what attention gave.

        Args:
          x_BTD: normalised inputs.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves the memory as it is; attention and segments go on.
        """
        config: TitansMACConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        heads, size = config.heads, dim // config.heads
        layers = memory_layers(self, dim)
        weights = memory_projections(self, dim)
        weights |= attention_projections(self, dim, heads, config.persistent)
        scale_HK = constant(self, "context_norm", (heads, size), ("heads", "head_dim"), 1.0)
        fresh = state is None
        if fresh:
            state = self._fresh_state(layers, batch, dim, x_BTD.dtype)
        if time == 0:
            return x_BTD, state
        if fresh and reset_BT is not None:  # the first token finds nothing to forget
            reset_BT = reset_BT.at[:, 0].set(False)

        position = state.memory.position
        place_T = (position + jnp.arange(time, dtype=jnp.int32)) % config.chunk
        rotate = lambda x_BTHK, place: rope(
            x_BTHK,
            jnp.broadcast_to(place[None], x_BTHK.shape[:2]),
            config.rope_theta,
        )
        plain_BTHK, k_BTHK, v_BTHK = (
            einsum("btd,dhk->bthk", x_BTD, weights[f"w_{role}"])
            for role in ("query", "key", "value")
        )
        ask_BTHK, tail_BKD = self._ask(weights, x_BTD, state.tail_BKD, reset_BT)
        first = lambda x_BTHK: jnp.swapaxes(x_BTHK, 1, 2)
        tokens = Tokens(
            q=first(rotate(plain_BTHK, place_T)),
            plain=first(plain_BTHK),
            k=first(rotate(k_BTHK, place_T)),
            v=first(v_BTHK),
            ask=first(ask_BTHK).astype(jnp.float32),
            valid=jnp.full((batch, 1, time), writes),
            reset=None if reset_BT is None else reset_BT[:, None],
        )

        def remember(h_BHCK, place_C):
            h_BCHK = rms_norm(first(h_BHCK), scale_HK, self.config.norm_eps)
            h_BCD = _whole(h_BCHK.astype(x_BTD.dtype))
            k_BCHK = einsum("btd,dhk->bthk", h_BCD, weights["w_key"])
            v_BCHK = einsum("btd,dhk->bthk", h_BCD, weights["w_value"])
            return first(rotate(k_BCHK, place_C)), first(v_BCHK)

        def written(y_BHCK, tails, valid, reset, slots):
            return self._written(weights, y_BHCK, tails, valid, reset, slots)

        args = (
            recurrence_spec(config),
            layers,
            persistent_keys(weights, x_BTD.dtype),
            remember,
            written,
            tokens,
            state.memory,
        )
        if not fresh and time <= FEW_TOKENS:
            y, m, memory = read_by_token(*args)
        else:
            y, m, memory = read_by_segment(*args, fresh=fresh)
        count_writes(self, batch * time * heads, writes)
        y_BTHK = gated_by_memory(self, first(y), first(m))
        return merge(self, self.config, y_BTHK), TitansMACState(memory, tail_BKD)

    def _fresh_state(self, layers, batch, dim, dtype) -> TitansMACState:
        """The state of `batch` streams that have read nothing."""
        config: TitansMACConfig = self.config.mixer
        heads, past = config.heads, max(config.conv - 1, 0)
        zeros = (jnp.zeros((batch, heads, config.chunk, dim // heads), dtype),) * 2
        tails = empty_tails(config, batch, dim, dtype)
        context = Context(zeros, zeros, tails, jnp.zeros((batch,), jnp.int32))
        weights = initial_weights(tuple(layers), batch, config.momentum == "titans")
        memory = MemoryAsContextState(weights, context, jnp.zeros((), jnp.int32))
        return TitansMACState(memory, jnp.zeros((batch, past, dim), dtype))

    def _ask(self, weights, x_BTD, tail_BKD, reset_BT):
        """What the memory before a segment is asked, and the convolution's new tail."""
        config: TitansMACConfig = self.config.mixer
        q_BTHK = einsum("btd,dhk->bthk", x_BTD, weights["w_q"])
        kernels = (weights["conv_q"],) if config.conv else ()

        def view(q_BTHK, tail_BKD, *kernels):
            for kernel in kernels:
                q_BTHK, tail_BKD = convolved(q_BTHK, kernel, tail_BKD, reset_BT)
            return activated(config, "q", q_BTHK), tail_BKD

        return recomputed(view)(q_BTHK, tail_BKD, *kernels)

    def _written(
        self, weights, y_BHCK, tails: Tails, valid, reset, slots: Slots
    ) -> tuple[Part, Tails]:
        """What attention gave as queries, keys, values and gates of the memory.

        Slots before the segment's first new token are filled with the convolutions' tails,
        which is where its last tokens were.
        """
        config: TitansMACConfig = self.config.mixer
        y_BCHK = jnp.swapaxes(y_BHCK, 1, 2)
        batch, time, heads, size = y_BCHK.shape
        y_BCD = _whole(y_BCHK)
        past = max(config.conv - 1, 0)
        reset_BS = None
        if reset is not None:
            reset_BS = jnp.pad(reset[:, 0], ((0, 0), (past, 0)))
        roles, new_tails = {}, {}
        for role in "qkv":
            x_BCHK = einsum("btd,dhk->bthk", y_BCD, weights[f"w_{role}"])
            if config.conv:
                x_BSD = x_BCHK.reshape(batch, time, heads * size)
                x_BSD = jnp.pad(x_BSD, ((0, 0), (past, 0), (0, 0)))
                x_BSD = jax.lax.dynamic_update_slice_in_dim(x_BSD, tails[role], slots.start, 1)
                kernel_JD = weights[f"conv_{role}"].reshape(config.conv, -1)
                x_BCD = causal_conv(x_BSD, kernel_JD, None, reset_BS)[0][:, past:]
                x_BCHK = x_BCD.reshape(x_BCHK.shape)
                new_tails[role] = _last_of_document(x_BSD, reset_BS, slots.stop, past)
            roles[role] = activated(config, role, x_BCHK)
        gates = memory_gates(config, weights, y_BCD)
        tokens = MemoryTokens(roles["q"], roles["k"], roles["v"], **gates)
        return heads_first(tokens).replace(valid=valid, reset=reset), new_tails


def _whole(x_BCHK: jax.Array) -> jax.Array:
    """Heads side by side, whole on every device.

    Where weights split it over a mesh again, the partitioner otherwise gets rows of the
    gradient wrong, and says nothing (jaxlib 0.10.2).
    """
    x_BCD = x_BCHK.reshape(*x_BCHK.shape[:2], -1)
    return nn.with_logical_constraint(x_BCD, ("batch", "time", None))


def _last_of_document(x_BSD, reset_BS, stop, past):
    """The last `past` inputs before the slot `stop`; zeros for those of earlier documents."""
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, stop, past, 1)
    if reset_BS is None or past == 0:
        return cut(x_BSD)
    document_BJ = cut(jnp.cumsum(reset_BS, axis=1, dtype=jnp.int32))
    same_BJ = document_BJ == document_BJ[:, -1:]
    return jnp.where(same_BJ[..., None], cut(x_BSD), 0)
