r"""Memora: an inner model whose weights are distributions, and stay so when it learns.

Behrouz et al. 2025, "It's All Connected: A Journey Through Test-Time Memorization, Attentional
Bias, Retention, and Online Optimization", arXiv:2504.13173: the model of the Miras framework
with the L2 objective and retention by KL divergence. For every head, with LN a LayerNorm with a
learned scale and bias::

    M(x) = x + LN(gelu(x W_in) W_out)
    loss(W; k, v) = 1/2 |M(k) - v|^2
    W_t = c softmax(alpha_t log W_{t-1} - eta_t grad loss(W_{t-1}; k_t, v_t))

Weights are positive and each slice of them sums to c; LN subtracts the mean, so outputs have
both signs all the same. The factor of the squared norm is in eta. Because the softmax forgets
what is common to a slice, the weights never have to leave log space: A = log W obeys
`A_t = alpha_t A_{t-1} - eta_t grad`, and that is the state.

In parallel (section 5 of the paper) softmax and logarithm are applied at the first token of
each chunk of C tokens alone, the lag token. It is written as above and gives W_1; the other
gradients of the chunk are taken at W_1, and its weights follow the plain recurrence::

    M_t = alpha_t M_{t-1} - eta_t grad loss(W_1; k_t, v_t)

A token reads M_t after its own write. Where the next chunk needs log M, which may not exist,
because M need not be positive, this module has the recurrence of A with the same gradients.
With a C of 1 every token is a lag token, and nothing is approximated.

A gradient is `x u^T` with x the input of a layer and u what comes back to its output, so a
chunk needs the x and u of its tokens and no matrix per token. A chunk ends where the position
in the stream is a multiple of C, and where a document ends: a document that starts inside a
chunk has its first, short chunk at the initial weights, without a lag token.
"""

from __future__ import annotations

import math
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.chunks import lay_out
from hope_jax.ops.decay import decay_products
from hope_jax.ops.recompute import Remat, scan_chunks

Simplex = Literal["inputs", "outputs", "matrix"]
_AXES = {"inputs": (-2,), "outputs": (-1,), "matrix": (-2, -1)}


@flax.struct.dataclass
class Memory:
    """What the inner models start from, and what they do not change: slow weights.

    Attributes:
      in_HKF, out_HFK: logarithms of weights; constants of a slice make no difference.
      scale_HK, bias_HK: of the LayerNorm on the output.
      simplex: what sums to c: the weights of all inputs of one output, of all outputs of one
        input, or the whole matrix.
      mass: c; None: the number of weights that sum to it, so that their mean is 1.
      eps: added to the variance in LN. Weights that are nearly equal give outputs that are
        nearly equal, and gradients grow with the inverse of their deviation.
      read: "linear" reads M_t, "lag" W_1.
    """

    in_HKF: jax.Array
    out_HFK: jax.Array
    scale_HK: jax.Array
    bias_HK: jax.Array
    simplex: Simplex = flax.struct.field(pytree_node=False, default="inputs")
    mass: float | None = flax.struct.field(pytree_node=False, default=None)
    eps: float = flax.struct.field(pytree_node=False, default=1e-2)
    read: Literal["linear", "lag"] = flax.struct.field(pytree_node=False, default="linear")


@flax.struct.dataclass
class Tokens:
    """Inputs of T tokens; float32 is what they are computed in.

    Attributes:
      q_BTHK, k_BTHK, v_BTHK: query, key and value of every token.
      eta_BTHK: rate of its gradient, for each input of the first layer and each output of the
        second; the last axis may be 1.
      alpha_BTH: retention, 0 to 1.
    """

    q_BTHK: jax.Array
    k_BTHK: jax.Array
    v_BTHK: jax.Array
    eta_BTHK: jax.Array
    alpha_BTH: jax.Array


@flax.struct.dataclass
class Written:
    """Gradients `x u^T` of one layer in the open chunk, as far as they are retained.

    Attributes:
      x_BHCI: inputs of the layer.
      u_BHCO: what comes back to its output; 0 for the lag token and slots without a token.
    """

    x_BHCI: jax.Array
    u_BHCO: jax.Array


@flax.struct.dataclass
class MemoraState:
    """Everything that reading on needs; its size does not depend on what was read.

    Attributes:
      logits: logarithms of W_1 of both layers, `[B, H, ...]` float32.
      written: what the open chunk has added since, one per layer.
      kept_BH: what the chunk has retained of W_1.
      position: int32 scalar, tokens read modulo C.
    """

    logits: tuple[jax.Array, jax.Array]
    written: tuple[Written, Written]
    kept_BH: jax.Array
    position: jax.Array


def weights(logits: jax.Array, memory: Memory) -> jax.Array:
    """`c softmax(logits)` over the slices of `memory`.

    >>> memory = Memory(*(jnp.zeros((1, 2, 2)),) * 2, *(jnp.ones((1, 2)),) * 2, mass=3.0)
    >>> weights(jnp.array([[0.0, 5.0], [0.0, 5.0]]), memory).tolist()
    [[1.5, 1.5], [1.5, 1.5]]
    """
    axes = _AXES[memory.simplex]
    mass = memory.mass
    if mass is None:
        mass = math.prod(logits.shape[axis] for axis in axes)
    return mass * jax.nn.softmax(logits, axis=axes)


def initial_state(memory: Memory, batch: int, chunk: int) -> MemoraState:
    """The state of `batch` streams that have read nothing."""
    logits = tuple(
        jnp.broadcast_to(a[None], (batch, *a.shape)).astype(jnp.float32)
        for a in (memory.in_HKF, memory.out_HFK)
    )
    heads = memory.in_HKF.shape[0]
    return MemoraState(
        logits,
        tuple(_nothing(a, chunk) for a in logits),
        jnp.ones((batch, heads), jnp.float32),
        jnp.zeros((), jnp.int32),
    )


def read_by_chunk(
    memory: Memory,
    tokens: Tokens,
    state: MemoraState | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool = True,
    *,
    chunk: int = 16,
    remat: Remat = "sqrt",
) -> tuple[jax.Array, MemoraState]:
    """Read and write T tokens, T / C steps one after the other.

    Args:
      memory: initial inner models.
      tokens: T >= 1 tokens.
      state: where to go on from; None: every row starts a document.
      reset_BT: bool, True where a document starts; None: nowhere.
      writes: False reads every token from the weights as they are, and a state comes back
        that only resets have changed.
      chunk: C; part of what is computed, see the module.
      remat: see `scan_chunks`.

    Returns:
      float32 `y_BTHK`, and the state after the last token.

    >>> zeros, ones = jnp.zeros((1, 2, 2)), jnp.ones((1, 2))
    >>> x = jnp.ones((1, 6, 1, 2)) * jnp.array([1.0, -1.0])
    >>> tokens = Tokens(x, x, x, 0.1 * x, jnp.ones((1, 6, 1)))
    >>> y, state = read_by_chunk(Memory(zeros, zeros, ones, 0 * ones), tokens, chunk=4)
    >>> y.shape, int(state.position)
    ((1, 6, 1, 2), 2)
    """
    batch, time, _, _ = tokens.q_BTHK.shape
    tokens = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2).astype(jnp.float32), tokens)
    fresh = state is None
    if fresh:
        state = initial_state(memory, batch, chunk)
        if reset_BT is not None:  # the first token finds nothing to forget
            reset_BT = reset_BT.at[:, 0].set(False)
    initial = initial_state(memory, 1, chunk).logits
    if not writes:
        y_BHTK, state = _read_only(memory, initial, tokens.q_BTHK, state, reset_BT)
        return jnp.swapaxes(y_BHTK, 1, 2), state

    offset = 0 if fresh else state.position
    slots = time if fresh else time + chunk - 1  # behind as many slots as the open chunk has
    count = -(-slots // chunk)
    ragged = not fresh or count * chunk != time
    end = offset + time

    def cut(x, axis):
        """Lay out along time behind `offset` slots, and split into chunks."""
        if ragged:
            x = lay_out(x, count * chunk, offset, axis)
        return jnp.moveaxis(
            x.reshape(*x.shape[:axis], count, chunk, *x.shape[axis + 1 :]), axis, 0
        )

    parts = (
        jnp.arange(count),
        jax.tree.map(lambda x: cut(x, 2), tokens),
        None if reset_BT is None else cut(reset_BT, 1),
    )

    def body(carry, part):
        logits, pending, kept_BH = carry
        index, token, reset_BC = part
        slot_C = jnp.arange(chunk)
        new_C = jnp.ones((chunk,), bool)
        if ragged:
            new_C = (index * chunk + slot_C >= offset) & (index * chunk + slot_C < end)
        if reset_BC is not None:
            logits = _choose(reset_BC[:, 0], initial, logits)
        logits = _written_lag(memory, logits, token, new_C[0] if ragged else True)
        restarted_BC = None
        if reset_BC is not None:
            reset_BC = reset_BC & (slot_C > 0)[None]
            restarted_BC = jnp.cumsum(reset_BC, 1) > 0
        apply = _Weights(memory, logits, initial, restarted_BC)
        new_C = new_C & (slot_C > 0)
        alpha_BHC = jnp.where(new_C[None, None], token.alpha_BTH, 1.0)
        between_BHCC, since_BHC = _retained(alpha_BHC, kept_BH, reset_BC)
        written = _gradients(memory, apply, token)
        written = _choose(new_C, written, pending, axis=2)
        y_BHCK = _read(memory, apply, token.q_BTHK, written, between_BHCC, since_BHC)

        last_BH, left_BHC = since_BHC[..., -1], between_BHCC[..., -1, :]
        written = tuple(w.replace(u_BHCO=left_BHC[..., None] * w.u_BHCO) for w in written)
        if restarted_BC is not None:
            logits = _choose(restarted_BC[:, -1], initial, logits)
        after = _stepped(logits, written, last_BH)
        nothing = jax.tree.map(jnp.zeros_like, pending)
        closed = after, nothing, jnp.ones_like(kept_BH)
        if not ragged:
            return closed, y_BHCK
        begun, complete = index * chunk < end, (index + 1) * chunk <= end
        opened = _choose(begun, (logits, written, last_BH), carry)
        return _choose(complete, closed, opened), y_BHCK

    start = state.logits, state.written, state.kept_BH
    (logits, written, kept_BH), y_NBHCK = scan_chunks(body, start, parts, remat)
    y_BHNCK = jnp.moveaxis(y_NBHCK, 0, 2)
    y_BHTK = y_BHNCK.reshape(*y_BHNCK.shape[:2], count * chunk, -1)
    if ragged:
        y_BHTK = jax.lax.dynamic_slice_in_dim(y_BHTK, offset, time, 2)
    position = jnp.asarray(end % chunk, jnp.int32)
    return jnp.swapaxes(y_BHTK, 1, 2), MemoraState(logits, written, kept_BH, position)


def read_by_token(
    memory: Memory,
    tokens: Tokens,
    state: MemoraState | None = None,
    reset_BT: jax.Array | None = None,
    *,
    chunk: int = 16,
) -> tuple[jax.Array, MemoraState]:
    """The same function as `read_by_chunk`, one token at a time: for a few tokens."""
    batch, time, _, _ = tokens.q_BTHK.shape
    initial = initial_state(memory, 1, chunk).logits
    if state is None:
        state = initial_state(memory, batch, chunk)
    if reset_BT is None:
        reset_BT = jnp.zeros((batch, time), bool)
    tokens = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2).astype(jnp.float32), tokens)

    def step(state: MemoraState, part):
        token, reset_B = part
        state = _forget(initial, state, reset_B)
        lag = state.position == 0
        logits = _written_lag(memory, state.logits, token, lag)
        apply = _Weights(memory, logits)
        alpha_BH = jnp.where(lag, 1.0, token.alpha_BTH[..., 0])
        kept_BH = alpha_BH * state.kept_BH
        written = []
        for old, new in zip(state.written, _gradients(memory, apply, token), strict=True):
            put = lambda all, one: jax.lax.dynamic_update_slice_in_dim(
                all, one, state.position, 2
            )
            u_BHCO = put(alpha_BH[..., None, None] * old.u_BHCO, new.u_BHCO)
            u_BHCO = jnp.where(lag, 0.0, u_BHCO)  # a lag token is the first of its chunk
            x_BHCI = jnp.where(lag, 0.0, put(old.x_BHCI, new.x_BHCI))
            written.append(Written(x_BHCI, u_BHCO))
        one_BHTC = jnp.ones((*kept_BH.shape, 1, chunk))
        y_BHTK = _read(memory, apply, token.q_BTHK, written, one_BHTC, kept_BH[..., None])

        def close(logits, written, kept_BH):
            nothing = tuple(jax.tree.map(jnp.zeros_like, w) for w in written)
            return _stepped(logits, written, kept_BH), nothing, jnp.ones_like(kept_BH)

        full = state.position + 1 == chunk
        args = logits, tuple(written), kept_BH
        logits, written, kept_BH = jax.lax.cond(full, close, lambda *args: args, *args)
        state = MemoraState(logits, written, kept_BH, (state.position + 1) % chunk)
        return state, y_BHTK[:, :, 0]

    per_token = jax.tree.map(lambda x: jnp.expand_dims(jnp.moveaxis(x, 2, 0), 3), tokens)
    state, y_TBHK = jax.lax.scan(step, state, (per_token, reset_BT.T))
    return jnp.moveaxis(y_TBHK, 0, 1), state


class _Weights:
    """Products with the weights that the gradients of a chunk are taken at."""

    def __init__(self, memory, logits, initial=None, restarted_BC=None):
        self.now = tuple(weights(a, memory) for a in logits)
        self.restarted_BC = restarted_BC
        if restarted_BC is not None:
            self.initial = tuple(weights(a, memory) for a in initial)
            self.any_restarted = jnp.any(restarted_BC)

    def forward(self, layer: int, x_BHCI: jax.Array) -> jax.Array:
        """From the input of a layer to its output."""
        return self._product("bhci,bhio->bhco", layer, x_BHCI)

    def back(self, layer: int, u_BHCO: jax.Array) -> jax.Array:
        """From the output of a layer to its input."""
        return self._product("bhco,bhio->bhci", layer, u_BHCO)

    def _product(self, equation, layer, x):
        here = lambda x: jnp.einsum(equation, x, self.now[layer])
        if self.restarted_BC is None:
            return here(x)

        def both(x):
            w = jnp.broadcast_to(self.initial[layer], self.now[layer].shape)
            restarted = self.restarted_BC[:, None, :, None]
            return jnp.where(restarted, jnp.einsum(equation, x, w), here(x))

        # few chunks have a start; a whole chunk in a branch would be kept twice
        return jax.lax.cond(self.any_restarted, both, here, x)


def _written_lag(memory: Memory, logits, token: Tokens, lag: bool | jax.Array):
    """Logarithms of W_1: the first token of the chunk is written whole, if it is there."""
    first = jax.tree.map(lambda x: x[:, :, :1], token)

    def write(logits):
        written = _gradients(memory, _Weights(memory, logits), first)
        alpha_BH11 = first.alpha_BTH[..., None]
        return tuple(
            alpha_BH11 * a - jnp.swapaxes(w.x_BHCI, 2, 3) * w.u_BHCO
            for a, w in zip(logits, written, strict=True)
        )

    if lag is True:
        return write(logits)
    return jax.lax.cond(lag, write, lambda logits: logits, logits)


def _gradients(memory: Memory, apply: _Weights, token: Tokens) -> tuple[Written, Written]:
    """Gradients of the loss, times eta, at the weights that `apply` knows."""
    k_BHCK, eta_BHCK = token.k_BTHK, token.eta_BTHK
    h_BHCF, pull = jax.vjp(jax.nn.gelu, apply.forward(0, k_BHCK))
    unit, inverse = _standardise(apply.forward(1, h_BHCF), memory.eps)
    scale, bias = memory.scale_HK[None, :, None], memory.bias_HK[None, :, None]
    d = (k_BHCK + unit * scale + bias - token.v_BTHK) * scale
    mean = lambda x: jnp.mean(x, axis=-1, keepdims=True)
    u_BHCK = inverse * (d - mean(d) - unit * mean(d * unit))
    (u_BHCF,) = pull(apply.back(1, u_BHCK))
    return Written(eta_BHCK * k_BHCK, u_BHCF), Written(h_BHCF, eta_BHCK * u_BHCK)


def _read(memory, apply, q_BHTK, written, between_BHTC, since_BHT) -> jax.Array:
    """`M_t(q_t)`; the gradients of the chunk count as far as they are retained."""
    x = q_BHTK
    for layer, w in enumerate(written):
        z = apply.forward(layer, x)
        if memory.read == "linear":
            score_BHTC = jnp.einsum("bhti,bhci->bhtc", x, w.x_BHCI) * between_BHTC
            z = since_BHT[..., None] * z - jnp.einsum("bhtc,bhco->bhto", score_BHTC, w.u_BHCO)
        x = jax.nn.gelu(z) if layer == 0 else z
    unit, _ = _standardise(x, memory.eps)
    return q_BHTK + unit * memory.scale_HK[None, :, None] + memory.bias_HK[None, :, None]


def _read_only(memory, initial, q_BHTK, state: MemoraState, reset_BT):
    """Every token from the weights of the state, or from initial ones after a reset."""
    batch, heads, time, _ = q_BHTK.shape
    restarted_BT = None if reset_BT is None else jnp.cumsum(reset_BT, 1) > 0
    apply = _Weights(memory, state.logits, initial, restarted_BT)
    chunk = state.written[0].x_BHCI.shape[2]
    between_BHTC = jnp.ones((batch, heads, time, chunk))
    since_BHT = jnp.broadcast_to(state.kept_BH[..., None], (batch, heads, time))
    if restarted_BT is not None:
        restarted_B1T = restarted_BT[:, None]
        between_BHTC = jnp.where(restarted_B1T[..., None], 0.0, between_BHTC)
        since_BHT = jnp.where(restarted_B1T, 1.0, since_BHT)
    y_BHTK = _read(memory, apply, q_BHTK, state.written, between_BHTC, since_BHT)
    if restarted_BT is not None:
        state = _forget(initial, state, restarted_BT[:, -1])
    return y_BHTK, state


def _forget(initial, state: MemoraState, reset_B: jax.Array) -> MemoraState:
    logits, kept_BH = _choose(
        reset_B,
        (initial, jnp.ones_like(state.kept_BH)),
        (state.logits, state.kept_BH),
    )
    zeros = lambda w: w.replace(u_BHCO=jnp.zeros_like(w.u_BHCO))
    written = _choose(reset_B, tuple(zeros(w) for w in state.written), state.written)
    return MemoraState(logits, written, kept_BH, state.position)


def _retained(alpha_BHC, kept_BH, reset_BC):
    """What each token finds of earlier writes, `[B, H, C, C]`, and of W_1, `[B, H, C]`.

    After a reset inside the chunk: of the initial weights.
    """
    if reset_BC is None:
        between_BHCC, since_BHC = decay_products(alpha_BHC)
        return between_BHCC, kept_BH[..., None] * since_BHC
    reset_B1C = reset_BC[:, None]
    between_BHCC, since_BHC = decay_products(jnp.where(reset_B1C, 0.0, alpha_BHC))
    start_BHC = jnp.where(reset_B1C, alpha_BHC, 0.0)
    own_BHC = jnp.sum(between_BHCC * start_BHC[..., None, :], axis=-1)
    return between_BHCC, kept_BH[..., None] * since_BHC + own_BHC


def _stepped(logits, written, kept_BH: jax.Array):
    """The logarithms after the writes of a chunk."""
    kept_BH11 = kept_BH[..., None, None]
    return tuple(
        kept_BH11 * a - jnp.einsum("bhci,bhco->bhio", w.x_BHCI, w.u_BHCO)
        for a, w in zip(logits, written, strict=True)
    )


def _standardise(z: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    centred = z - jnp.mean(z, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    return centred * inverse, inverse


def _nothing(logits: jax.Array, chunk: int) -> Written:
    batch, heads, inputs, outputs = logits.shape
    zeros = lambda size: jnp.zeros((batch, heads, chunk, size), jnp.float32)
    return Written(zeros(inputs), zeros(outputs))


def _choose(condition: jax.Array, yes, no, axis: int = 0):
    """Where the condition holds, which is a scalar or one value per index of `axis`."""

    def choose(a, b):
        a = jnp.broadcast_to(a, b.shape)
        if condition.ndim == 0:
            return jnp.where(condition, a, b)
        shape = [1] * b.ndim
        shape[axis] = -1
        return jnp.where(condition.reshape(shape), a, b)

    return jax.tree.map(choose, yes, no)
