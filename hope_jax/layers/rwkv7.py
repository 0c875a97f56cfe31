"""RWKV-7 as a sequence mixer (Peng et al. 2025, arXiv:2503.14456); its memory is
`hope_jax.ops.rwkv7`."""

from __future__ import annotations

import functools
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig, RWKV7Config
from hope_jax.layers.heads import count_writes, merge
from hope_jax.layers.linear import constant, einsum, parameter, weight
from hope_jax.layers.per_device import BY_HEAD, BY_TIME, ROWS, on_each_device
from hope_jax.ops.conv import previous
from hope_jax.ops.memory import l2_normalise
from hope_jax.ops.recompute import recomputed
from hope_jax.ops.rwkv7 import Tokens, read_by_chunk, step, written

# What each role sees of the token before: 1 - (channel / width) ** (power / 2) of it.
_SHIFT_POWERS = {"r": 0.2, "decay": 0.9, "k": 0.7, "v": 0.7, "rate": 0.9, "gate": 0.2}
# Deviations times the root of the width: uniform up to 0.5, and up to 0.05 for keys.
_SCALES = {"r": 0.5 / 3**0.5, "k": 0.05 / 3**0.5, "v": 0.5 / 3**0.5}
_LOW_RANK = {"decay": nn.tanh, "rate": lambda x: x, "gate": nn.sigmoid}
_NORM_EPS = 1e-5  # of the norm of a head's read, times the size of the head


@flax.struct.dataclass
class RWKV7State:
    """Fast state of one layer.

    Attributes:
      memory_BHKV: float32 memory.
      last_BD: the last input, which the token shift mixes into the next.
    """

    memory_BHKV: jax.Array
    last_BD: jax.Array


class RWKV7(nn.Module):
    """The time mixing of RWKV-7: a memory with decays and in-context rates per channel.

    What the published block has besides is not here. Its channel mix, a feed-forward layer of
    squared ReLU with a token shift, is the language model's own feed-forward layer instead.
    Values are not mixed with those of the first layer (the value residual): a mixer does not
    see other layers. Initial values that depend on the place of the layer are those of the
    middle of the stack, because layers are scanned; the first factors of the low-rank layers
    start small instead of at zero, and the output and its gate at the scale of the other
    mixers instead of at zero.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: RWKV7State | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, RWKV7State]:
        """Write every token, then read it.

        Args:
          x_BTD: normalised inputs.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves the memory as it is. The token shift goes on, and the bonus,
            which a token gives its own value past the memory, stays.
        """
        mixer: RWKV7Config = self.config.mixer
        batch, time, dim = x_BTD.shape
        heads, size = mixer.heads, dim // mixer.heads
        shape, axes = (heads, size), ("heads", "head_dim")
        channels = {name: self._channels(name, init) for name, init in _CHANNELS.items()}
        projections = self._projections(dim, shape)
        tail_BD = None if state is None else state.last_BD
        if time == 0:
            if state is None:
                nothing = jnp.zeros((batch, heads, size, size), jnp.float32)
                state = RWKV7State(nothing, jnp.zeros((batch, dim), x_BTD.dtype))
            return x_BTD, state

        def project(x_BTD, projections):
            """One product per role, each of a mix of its own; the mixes are done again."""
            previous_BTD, last_BD = previous(x_BTD, tail_BD, reset_BT)
            change_BTD = previous_BTD - x_BTD
            products = {}
            for role, (mix_D, w) in projections.items():
                mixed_BTD = x_BTD + change_BTD * mix_D.astype(x_BTD.dtype)[None, None]
                out = "btd,dhk->bthk" if w.ndim == 3 else "btd,dz->btz"
                products[role] = einsum(out, mixed_BTD, w)
            return products, last_BD

        products, last_BD = recomputed(project)(x_BTD, projections)
        seconds = {name: self._second_factor(name, shape) for name in _LOW_RANK}
        tokens, bonus_BTH = recomputed(_tokens)(products, channels, seconds)
        memory_BHKV = None if state is None else state.memory_BHKV
        y_BTHV, memory_BHKV = self._read(tokens, memory_BHKV, reset_BT, writes)
        norm = (
            constant(self, "read_norm_scale", shape, axes, 1.0),
            constant(self, "read_norm_bias", shape, axes, 0.0),
        )

        def finish(y_BTHV, v_BTHV, bonus_BTH, gate_BTZ, second, norm):
            scale_HV, bias_HV = (x[None, None] for x in norm)
            y_BTHV = y_BTHV - y_BTHV.mean(-1, keepdims=True)
            variance = jnp.mean(y_BTHV**2, -1, keepdims=True)
            y_BTHV = y_BTHV * jax.lax.rsqrt(variance + size * _NORM_EPS) * scale_HV + bias_HV
            y_BTHV = (y_BTHV + bonus_BTH[..., None] * v_BTHV).astype(x_BTD.dtype)
            gate_BTHV = einsum("btz,zhv->bthv", _LOW_RANK["gate"](gate_BTZ), second)
            return y_BTHV * gate_BTHV

        y_BTHV = recomputed(finish)(
            y_BTHV, products["v"], bonus_BTH, products["gate"], seconds["gate"], norm
        )
        return merge(self, self.config, y_BTHV), RWKV7State(memory_BHKV, last_BD)

    def _read(self, tokens: Tokens, memory_BHKV, reset_BT, writes):
        """By chunk, or one `step` for a single token; counts the writes for logs."""
        mixer: RWKV7Config = self.config.mixer
        count_writes(self, tokens.k_BTHK[..., 0].size, writes)
        if self.is_mutable_collection("stats"):
            self.sow("stats", "alpha", jnp.mean(jnp.exp(tokens.log_w_BTHK)))
            self.sow("stats", "eta", jnp.mean(tokens.a_BTHK))
        if memory_BHKV is not None and tokens.k_BTHK.shape[1] == 1:
            token = jax.tree.map(lambda x: x[:, 0], written(tokens, writes))
            reset_B = None if reset_BT is None else reset_BT[:, 0]
            y_BHV, memory_BHKV = step(memory_BHKV, token, reset_B)
            return y_BHV[:, None], memory_BHKV
        read = functools.partial(
            read_by_chunk, writes=writes, chunk=mixer.chunk, remat=mixer.remat
        )
        read = on_each_device(read, (BY_TIME, BY_HEAD, ROWS), (BY_TIME, BY_HEAD))
        return read(tokens, memory_BHKV, reset_BT)

    def _projections(self, dim: int, shape: tuple[int, int]) -> dict:
        """What is mixed of the token before, and the first product, of every role."""
        ranks, projections = self.config.mixer.ranks(dim), {}
        for role, power in _SHIFT_POWERS.items():

            def mix(key, shape, dtype, power=power):
                del key
                return 1 - (jnp.arange(dim, dtype=dtype) / dim) ** (power / 2)

            mix_D = parameter(self, f"shift_{role}", mix, (dim,), ("embed",))
            if role in _LOW_RANK:
                sizes, axes, scale = (ranks[role],), (None,), 0.1
            else:
                sizes, axes, scale = shape, ("heads", "head_dim"), _SCALES[role]
            name = f"w_{role}_in" if role in _LOW_RANK else f"w_{role}"
            w = weight(self, name, (dim, *sizes), ("embed", *axes), scale * dim**-0.5)
            projections[role] = mix_D, w
        return projections

    def _second_factor(self, role: str, shape: tuple[int, int]) -> jax.Array:
        """A low-rank layer's second factor: near-orthogonal, of norm 0.1; the gate's larger."""
        rank = self.config.mixer.ranks(math.prod(shape))[role]
        # sigmoids of about a half come in: such gates have a deviation of about a half
        std = rank**-0.5 if role == "gate" else 0.1 * max(rank, math.prod(shape)) ** -0.5
        return weight(self, f"w_{role}_out", (rank, *shape), (None, "heads", "head_dim"), std)

    def _channels(self, name: str, init) -> jax.Array:
        """A number per channel, from the channel's place in the model and in its head."""
        heads, size = self.config.mixer.heads, self.config.dim // self.config.mixer.heads

        def initial(key, shape, dtype):
            del key
            place = jnp.arange(heads * size, dtype=dtype) / max(heads * size - 1, 1)
            in_head = 2 * jnp.arange(size, dtype=dtype) / max(size - 1, 1) - 1
            zigzag = jnp.tile(in_head * jnp.abs(in_head), heads)
            return init(place, zigzag).reshape(shape)

        return parameter(self, name, initial, (heads, size), ("heads", "head_dim"))


# By the place of a channel among all (0 to 1) and in its head (-1 to 1, more in the middle).
_CHANNELS = {
    "decay": lambda place, zigzag: 6 * place ** (1 + 0.5**0.3) - 5.5 + 2.5 * zigzag,
    "rate": lambda place, zigzag: 0.4 * (place - 0.5) + 0.3 * zigzag - 0.19,
    "removal_scale": lambda place, zigzag: 0.71 - 0.1 * (place - 0.5) + 0 * zigzag,
    "rate_scale": lambda place, zigzag: 1.02 + 0 * place,
    "bonus": lambda place, zigzag: 0 * place - 0.04,
}


def _tokens(products, channels, seconds) -> tuple[Tokens, jax.Array]:
    """What the memory reads, and each token's bonus, float32 but for what is projected."""
    f32 = jnp.float32
    channels = {name: value[None, None] for name, value in channels.items()}

    def low_rank(role: str) -> jax.Array:
        hidden_BTZ = _LOW_RANK[role](products[role])
        second = einsum("btz,zhk->bthk", hidden_BTZ, seconds[role], result=f32)
        return channels[role] + second

    log_w_BTHK = -math.exp(-0.5) * nn.sigmoid(low_rank("decay"))
    a_BTHK = nn.sigmoid(low_rank("rate"))
    r_BTHK, k_BTHK = products["r"], products["k"].astype(f32)
    kappa_BTHK = l2_normalise(k_BTHK * channels["removal_scale"])
    k_BTHK = k_BTHK * (1 + (a_BTHK - 1) * channels["rate_scale"])
    bonus_BTH = jnp.sum(r_BTHK * k_BTHK * channels["bonus"], axis=-1)
    half = lambda x: x.astype(r_BTHK.dtype)
    tokens = Tokens(
        r_BTHK, log_w_BTHK, half(k_BTHK), products["v"], half(kappa_BTHK), half(a_BTHK)
    )
    return tokens, bonus_BTH
