r"""Selective state spaces: a decaying sum per channel whose decay the input chooses.

Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
arXiv:2312.00752, Algorithm 2 with the discretisation of its published code. For channel e and
every number n of its state::

    h_t[n, e] = exp(dt_t[e] a[n, e]) h_{t-1}[n, e] + dt_t[e] b_t[n] x_t[e]
    y_t[e] = sum_n c_t[n] h_t[n, e]

with a < 0. The state starts at zero. A step dt of 0 changes nothing; what a reset forgets is
forgotten whole.

`step` is one token, `read_by_token` the plain recurrence, `read_by_chunk` the same function in
T / C steps one after the other: inside a chunk the recurrence is an associative scan of pairs
(decay, input) by doubling, so products of decays are multiplied up and never divided by. The
arrays with an axis for the state exist for one chunk at a time, in the backward pass too. The
state is float32, with the channels last, where vector units want the long axis.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.even_chunks import filled_up, join_time, split_time
from hope_jax.ops.own_gradient import own_gradient
from hope_jax.ops.recompute import Remat, scan_chunks


@flax.struct.dataclass
class Tokens:
    """What the recurrence reads at each token; `T` may be missing from every field.

    Attributes:
      x_BTE: inputs of the channels.
      dt_BTE: steps, 0 or more; float32 is what they are computed in.
      b_BTN: where an input goes in the state.
      c_BTN: what is read from it.
      keep_BT: 0 where everything before is forgotten, else 1; None: 1.
    """

    x_BTE: jax.Array
    dt_BTE: jax.Array
    b_BTN: jax.Array
    c_BTN: jax.Array
    keep_BT: jax.Array | None = None


def empty_state(tokens: Tokens) -> jax.Array:
    """The state before the first token: float32 zeros `[B, N, E]`."""
    batch, _, channels = tokens.x_BTE.shape
    return jnp.zeros((batch, tokens.b_BTN.shape[-1], channels), jnp.float32)


def gated(
    tokens: Tokens, reset_BT: jax.Array | None = None, writes: bool | jax.Array = True
) -> Tokens:
    """Fold document starts and `writes` into the tokens.

    Args:
      tokens: tokens without `keep_BT`.
      reset_BT: True where everything before is forgotten.
      writes: False leaves the state as it is; resets still forget.
    """
    dt_BTE = jnp.where(writes, tokens.dt_BTE.astype(jnp.float32), 0.0)
    if reset_BT is None:
        reset_BT = jnp.zeros(dt_BTE.shape[:2], bool)
    return tokens.replace(dt_BTE=dt_BTE, keep_BT=1.0 - reset_BT.astype(jnp.float32))


def step(state_BNE: jax.Array, token: Tokens, a_NE: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Write one token, then read: what every faster form must equal.

    Args:
      state_BNE: float32 state.
      token: one token, from `gated`; its fields have no time axis.
      a_NE: float32 logarithms of the decay in a step of 1, below 0.

    Returns:
      `(y_BE, state_BNE)`, float32.
    """
    one = jax.tree.map(lambda x: x[:, None], token)
    decay_BCNE, input_BCNE, c_BCN = _terms(one, a_NE)
    state_BNE = decay_BCNE[:, 0] * state_BNE + input_BCNE[:, 0]
    return jnp.einsum("bn,bne->be", c_BCN[:, 0], state_BNE), state_BNE


def read_by_token(
    tokens: Tokens,
    a_NE: jax.Array,
    state_BNE: jax.Array | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool | jax.Array = True,
) -> tuple[jax.Array, jax.Array]:
    """The plain recurrence, one token after another; see `read_by_chunk`."""
    if state_BNE is None:
        state_BNE = empty_state(tokens)
    tokens = gated(tokens, reset_BT, writes)
    in_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), tokens)
    state_BNE, y = jax.lax.scan(lambda s, x: step(s, x, a_NE)[::-1], state_BNE, in_time)
    return jnp.moveaxis(y, 0, 1), state_BNE


def read_by_chunk(
    tokens: Tokens,
    a_NE: jax.Array,
    state_BNE: jax.Array | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool | jax.Array = True,
    *,
    chunk: int = 16,
    remat: Remat = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Write and read tokens chunk by chunk; the result does not depend on the chunk.

    Args:
      tokens: at least one token per row.
      a_NE: float32 logarithms of the decay in a step of 1, below 0.
      state_BNE: float32 state to go on from; None: empty.
      reset_BT: True where everything before is forgotten.
      writes: False reads without writing.
      chunk: tokens per chunk; each doubling of it adds a pass over the chunk.
      remat: see `scan_chunks`.

    Returns:
      `(y_BTE, state_BNE)`, float32: what each token reads after its own write, and the state
      after the last.

    With a step of ln 2 and a = -1 the state is halved at every token:

    >>> one, steps = jnp.ones((1, 3, 1)), jnp.full((1, 3, 1), jnp.log(2.0))
    >>> y, _ = read_by_chunk(Tokens(one / jnp.log(2.0), steps, one, one), -jnp.ones((1, 1)))
    >>> y.ravel().tolist()
    [1.0, 1.5, 1.75]
    """
    length = tokens.x_BTE.shape[1]
    if state_BNE is None:
        state_BNE = empty_state(tokens)
    chunk = min(chunk, length)
    chunks = jax.tree.map(lambda x: split_time(x, chunk), gated(tokens, reset_BT, writes))
    if length % chunk:  # padding has steps of 0; it must keep the state as well
        padding = filled_up(length, chunk)[:, None]
        chunks = chunks.replace(keep_BT=jnp.where(padding, 1.0, chunks.keep_BT))

    def body(state_BNE, part):
        decay_BCNE, input_BCNE, c_BCN = _terms(part, a_NE)
        first_BNE = input_BCNE[:, 0] + decay_BCNE[:, 0] * state_BNE
        states_BCNE = _scan(decay_BCNE, input_BCNE.at[:, 0].set(first_BNE))
        return states_BCNE[:, -1], jnp.sum(states_BCNE * c_BCN[..., None], axis=2)

    state_BNE, y_NBCE = scan_chunks(body, state_BNE, chunks, remat)
    return join_time(y_NBCE, length), state_BNE


def _terms(part: Tokens, a_NE: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Decay and input of every number of the state, and what reads them, float32."""
    x_BCE, b_BCN, c_BCN = (y.astype(jnp.float32) for y in (part.x_BTE, part.b_BTN, part.c_BTN))
    decay_BCNE = jnp.exp(part.dt_BTE[:, :, None] * a_NE[None, None])
    decay_BCNE = decay_BCNE * part.keep_BT[..., None, None]
    input_BCNE = b_BCN[..., None] * (part.dt_BTE * x_BCE)[:, :, None]
    return decay_BCNE, input_BCNE, c_BCN


@own_gradient
def _scan(decay_BCNE: jax.Array, input_BCNE: jax.Array) -> jax.Array:
    """`h_t = decay_t h_{t-1} + input_t` from nothing on.

    The gradient is the same recurrence from the end on; left to differentiation, every pass
    would keep its intermediates.
    """
    return _double(decay_BCNE, input_BCNE, 1)


def _scan_forward(decay, inputs):
    states = _double(decay, inputs, 1)
    return states, (decay, states)


def _scan_backward(saved, dy):
    decay, states = saved
    dinputs = _double(_shift(decay, -1), dy, -1)
    return dinputs * _shift(states, 1), dinputs


_scan.defvjp(_scan_forward, _scan_backward)


def _double(decay: jax.Array, value: jax.Array, direction: int) -> jax.Array:
    """Sums over 1, 2, 4, ... tokens back, or ahead with a direction of -1."""
    reach, size = 1, value.shape[1]
    while reach < size:
        value = value + decay * _shift(value, direction * reach)
        reach *= 2
        if reach < size:
            decay = decay * _shift(decay, direction * reach // 2)
    return value


def _shift(x: jax.Array, places: int) -> jax.Array:
    """Move along the chunk, later if `places` is positive; zeros come in."""
    size, pad = x.shape[1], [(0, 0)] * x.ndim
    pad[1] = (places, 0) if places > 0 else (0, -places)
    padded = jnp.pad(x, pad)
    return padded[:, :size] if places > 0 else padded[:, -size:]
