r"""Deep memories that are trained by gradient descent as they are read from.

The long-term memory of Titans (Behrouz et al. 2025, arXiv:2501.00663, Eqs. 8-18), and with
another loss and without momentum deep linear attention (Behrouz et al. 2025, Atlas,
arXiv:2505.23735). For every head a memory M of L weight matrices, with an activation between
them, is written at every token and then read::

    S_t = momentum_t S_{t-1} - rate_t grad loss(M_{t'}; k_t, v_t)
    M_t = retention_t M_{t-1} + S_t
    y_t = M_t(q_t)

| loss | | gradient at the output |
|---|---|---|
| "l2" | 1/2 abs(M(k) - v)^2 | M(k) - v |
| "dot" | -<M(k), v> | -v |

Titans calls the three gates eta, theta and 1 - alpha, and has no factor 1/2 in the loss; the
gradient that it writes out has no factor 2 either, and a rate can be twice another.

Gradients are taken at the weights M_{t'} at the start of the chunk of C tokens that t belongs
to (Eq. 16). Then those of all tokens of a chunk are known at once, and the gradient of a
matrix is `x_t g_t^T` with x the input of the layer and g what comes back to its output. So
within a chunk the recurrence is linear, with scalar gates, and is computed as the masked
products of `hope_jax.ops.dgd` without a matrix per token: reading means, layer by layer, the
weights at the start, the momentum at the start, and the chunk's gradients up to and including
token t, each with its exact product of gates. T tokens take T / C steps one after the other.

Chunks are counted from the start of the stream. A document that starts inside a chunk finds
the initial weights and no momentum, and takes its gradients at these until the chunk ends.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.chunks import FastWeights, Slots, forget, initial_weights, run_chunks
from hope_jax.ops.dgd import (
    Gates,
    apply_writes,
    chunk_gates,
    dgd_step,
    read_running,
    solve_writes,
)
from hope_jax.ops.memory import ACTIVATIONS, Frozen, hidden_layer
from hope_jax.ops.recompute import Remat

Layers = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class DeepMemorySpec:
    """What does not change with the tokens; static under jit.

    Attributes:
      chunk: C, tokens whose gradients are taken at one state; 1 is the plain recurrence.
      objective: the inner loss.
      activation: between the layers.
      hidden_norm: "l2" gives hidden layers unit length before the next layer.
      residual: whether a memory adds its input to its output.
      decay_to: what the retention decays weights to: zero, or their initial values.
      remat: see `hope_jax.ops.recompute.scan_chunks`.
    """

    chunk: int = 64
    objective: Literal["l2", "dot"] = "l2"
    activation: Literal["gelu", "silu"] = "gelu"
    hidden_norm: Literal["none", "l2"] = "none"
    residual: bool = False
    decay_to: Literal["zero", "initial"] = "zero"
    remat: Remat = "auto"

    def hidden(self, pre: jax.Array) -> jax.Array:
        """Input of the next layer from the output of one."""
        return hidden_layer(pre, ACTIVATIONS[self.activation], self.hidden_norm)[0]


@flax.struct.dataclass
class Tokens:
    """Inputs of T tokens; all are computed with in float32.

    Attributes:
      q_BTHK, k_BTHK: queries and keys.
      v_BTHV: values; V = K for a memory with `residual`.
      rate_BTH: rate of the gradient.
      retention_BTH: what of the weights is kept, 0 to 1; None: 1.
      momentum_BTH: what of the momentum is kept, 0 to 1; None: there is no momentum.
    """

    q_BTHK: jax.Array
    k_BTHK: jax.Array
    v_BTHV: jax.Array
    rate_BTH: jax.Array
    retention_BTH: jax.Array | None = None
    momentum_BTH: jax.Array | None = None


@flax.struct.dataclass
class Part:
    """`Tokens` with heads before time, `[B, H, T, ...]` float32, and what they do.

    Attributes:
      q, k, v, rate, retention, momentum: as in `Tokens`; the retention is always there.
      valid: bool `[B, 1, T]`, False leaves weights and momentum alone.
      reset: bool `[B, 1, T]`, True where a document starts; None: nowhere.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    rate: jax.Array
    retention: jax.Array
    momentum: jax.Array | None
    valid: jax.Array
    reset: jax.Array | None


@flax.struct.dataclass
class DeepMemoryState:
    """Everything that reading on needs; its size does not depend on what was read.

    Attributes:
      weights: of all layers, tuples of `[B, H, K, Z]` float32.
      position: int32 scalar, tokens read modulo C.
    """

    weights: FastWeights
    position: jax.Array


def initial_state(layers: Layers, batch: int, momentum: bool) -> DeepMemoryState:
    """The state of `batch` streams that have read nothing.

    Args:
      layers: initial weights of every layer, `[H, K, Z]` float32.
      batch: number of streams.
      momentum: whether writes carry momentum.
    """
    weights = initial_weights(tuple(layers), batch, momentum)
    return DeepMemoryState(weights, jnp.zeros((), jnp.int32))


def read_by_chunk(
    spec: DeepMemorySpec,
    layers: Layers,
    tokens: Tokens,
    state: DeepMemoryState | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool = True,
) -> tuple[jax.Array, DeepMemoryState]:
    """Write and read T tokens chunk by chunk.

    Args:
      spec: the recurrence.
      layers: initial weights of every layer, `[H, K, Z]` float32.
      tokens: T >= 1 tokens.
      state: where to go on from; None: every row starts a document.
      reset_BT: bool, True where a document starts; None: nowhere.
      writes: False reads every token from the weights as they are. Chunks go on meanwhile.

    Returns:
      Float32 `y_BTHV`, and the state after the last token.

    A linear memory with a rate of 1 takes up a pair at once:

    >>> k = jnp.array([[1.0, 0.0], [0.0, 1.0]])[None, :, None]
    >>> v = jnp.array([[3.0], [4.0]])[None, :, None]
    >>> tokens = Tokens(k[:, ::-1], k, v, rate_BTH=jnp.ones((1, 2, 1)))
    >>> y, state = read_by_chunk(DeepMemorySpec(chunk=2), (jnp.zeros((1, 2, 1)),), tokens)
    >>> y.ravel().tolist(), state.weights.running[0].ravel().tolist()
    ([0.0, 3.0], [3.0, 4.0])
    """
    part = heads_first(tokens, reset_BT, writes)
    fresh = state is None
    if fresh:
        state = initial_state(layers, part.q.shape[0], part.momentum is not None)
        if reset_BT is not None:  # the first token finds nothing to forget
            part = part.replace(reset=part.reset.at[..., 0].set(False))
    offset = 0 if fresh else state.position

    def one_chunk(rows, weights, context, part, slots):
        start, frozen = chunk_start(rows, weights, part.reset, slots)
        running, momentum, y = write_and_read(spec, rows, weights, start, frozen, part)
        return running, momentum, context, y

    y_BHTV, weights, _ = run_chunks(
        one_chunk, tuple(layers), state.weights, part, offset, spec.chunk, remat=spec.remat
    )
    position = (state.position + part.q.shape[2]) % spec.chunk
    return jnp.swapaxes(y_BHTV, 1, 2), DeepMemoryState(weights, position)


def read_by_token(
    spec: DeepMemorySpec,
    layers: Layers,
    tokens: Tokens,
    state: DeepMemoryState | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool = True,
) -> tuple[jax.Array, DeepMemoryState]:
    """The plain recurrence, one token after another; arguments as in `read_by_chunk`."""
    part = heads_first(tokens, reset_BT, writes)
    if state is None:
        state = initial_state(layers, part.q.shape[0], part.momentum is not None)

    def step(state: DeepMemoryState, token: Part):
        weights = find(layers, state.weights, token.reset)
        weights, y = write_and_read_token(spec, layers, weights, token, state.position)
        return DeepMemoryState(weights, (state.position + 1) % spec.chunk), y[:, :, 0]

    per_token = jax.tree.map(lambda x: jnp.expand_dims(jnp.moveaxis(x, 2, 0), 3), part)
    state, y_TBHV = jax.lax.scan(step, state, per_token)
    return jnp.moveaxis(y_TBHV, 0, 1), state


def heads_first(
    tokens: Tokens, reset_BT: jax.Array | None = None, writes: bool | jax.Array = True
) -> Part:
    """Tokens as what goes over chunks reads them; arguments as in `read_by_chunk`."""
    of = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2).astype(jnp.float32), tokens)
    batch, _, time, _ = of.q_BTHK.shape
    retention = of.retention_BTH
    return Part(
        q=of.q_BTHK,
        k=of.k_BTHK,
        v=of.v_BTHV,
        rate=of.rate_BTH,
        retention=jnp.ones_like(of.rate_BTH) if retention is None else retention,
        momentum=of.momentum_BTH,
        valid=jnp.full((batch, 1, time), writes),
        reset=None if reset_BT is None else reset_BT[:, None],
    )


def evaluate(spec: DeepMemorySpec, frozen: Frozen, x: jax.Array) -> jax.Array:
    """`M(x)` for `[B, H, C, K]` inputs; `frozen` holds tuples of layers."""
    z = x
    for index in range(len(frozen.weights)):
        z = frozen.apply(spec.hidden(z) if index else z, lambda w, i=index: w[i])
    return x + z if spec.residual else z


def chunk_start(
    rows: Layers, weights: FastWeights, reset: jax.Array | None, slots: Slots
) -> tuple[Frozen, Frozen]:
    """Weights that a chunk goes on from, and those that its gradients are taken at.

    From its first reset on these are the initial ones, `rows`. For the callback of
    `run_chunks`.
    """
    fresh_C = None if reset is None else jnp.cumsum(reset, axis=-1) > 0
    start = Frozen(weights.running, rows, fresh_C)
    if slots.begun is None:
        return start, start
    begun = jax.tree.map(
        lambda f, w: jnp.where(slots.begun, f, w), weights.frozen, weights.running
    )
    return start, Frozen(begun, rows, fresh_C)


def write_and_read(
    spec: DeepMemorySpec,
    rows: Layers,
    weights: FastWeights,
    start: Frozen,
    frozen: Frozen,
    part: Part,
) -> tuple[Layers, Layers | None, jax.Array]:
    """One chunk in closed form.

    Args:
      spec: the recurrence.
      rows: initial weights with a batch axis of size 1.
      weights: before the chunk.
      start, frozen: from `chunk_start`.
      part: tokens of the chunk.

    Returns:
      Weights and momentum after the chunk, and `[B, H, C, V]`, what each token reads after its
      own write.
    """
    inputs, gradients = _gradients(spec, frozen, part.k, part.v)
    shape = part.rate.shape
    gates = chunk_gates(
        Gates(part.rate, part.retention, part.momentum, jnp.broadcast_to(part.valid, shape)),
        None if part.reset is None else jnp.broadcast_to(part.reset, shape),
        read_after=True,
    )
    toward = Frozen(rows) if spec.decay_to == "initial" else None
    running, momentum, z = [], [], part.q
    for index, (x, g) in enumerate(zip(inputs, gradients, strict=True)):
        layer = lambda w, index=index: w[index]
        old_momentum = None if weights.momentum is None else weights.momentum[index]
        writes = solve_writes(x, g, None, None, gates, "gd")
        new, new_momentum = apply_writes(
            weights.running[index],
            old_momentum,
            rows[index],
            writes,
            gates,
            None if toward is None else rows[index],
        )
        running.append(new)
        momentum.append(new_momentum)
        z = spec.hidden(z) if index else z
        z = read_running(
            z,
            start.apply(z, layer),
            None if old_momentum is None else z @ old_momentum,
            writes,
            gates,
            None if toward is None else toward.apply(z, layer),
        )
    y = part.q + z if spec.residual else z
    return tuple(running), None if weights.momentum is None else tuple(momentum), y


def find(layers: Layers, weights: FastWeights, reset: jax.Array | None) -> FastWeights:
    """The weights that one token finds: initial ones where a document starts.

    Args:
      layers: initial weights.
      weights: fast weights.
      reset: bool `[B, 1, 1]`, or None.
    """
    if reset is None:
        return weights
    first = initial_weights(tuple(layers), reset.shape[0], weights.momentum is not None)
    return forget(first, weights, reset[:, 0, 0])


def write_and_read_token(
    spec: DeepMemorySpec,
    layers: Layers,
    weights: FastWeights,
    token: Part,
    position: jax.Array,
) -> tuple[FastWeights, jax.Array]:
    """One token by the definition.

    Args:
      spec: the recurrence.
      layers: initial weights.
      weights: from `find`.
      token: a part of length 1.
      position: its place in the chunk, int32 scalar.

    Returns:
      The new weights, and `[B, H, 1, V]`.
    """
    inputs, gradients = _gradients(spec, Frozen(weights.frozen), token.k, token.v)
    gates = Gates(token.rate, token.retention, token.momentum, token.valid)
    gates = jax.tree.map(lambda g: jnp.broadcast_to(g, token.rate.shape)[..., 0], gates)
    running, momentum = [], []
    for index, (x, g) in enumerate(zip(inputs, gradients, strict=True)):
        new, new_momentum = dgd_step(
            weights.running[index],
            None if weights.momentum is None else weights.momentum[index],
            x[..., 0, :],
            g[..., 0, :],
            gates,
            "gd",
            layers[index][None] if spec.decay_to == "initial" else None,
        )
        running.append(new)
        momentum.append(new_momentum)
    running = tuple(running)
    # a branch copies nothing between boundaries, where a selection copies every token
    frozen = jax.lax.cond(
        position + 1 == spec.chunk, lambda r, f: r, lambda r, f: f, running, weights.frozen
    )
    momentum = None if weights.momentum is None else tuple(momentum)
    y = evaluate(spec, Frozen(running), token.q)
    return FastWeights(running, frozen, momentum), y


def _gradients(
    spec: DeepMemorySpec, frozen: Frozen, k: jax.Array, v: jax.Array
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Inputs of all layers at the keys, and the gradients of the loss at their outputs."""
    inputs, pulls, z = [], [], k
    for index in range(len(frozen.weights)):
        if index:
            z, pull = jax.vjp(spec.hidden, z)
            pulls.append(pull)
        inputs.append(z)
        z = frozen.apply(z, lambda w, i=index: w[i])
    if spec.residual:
        z = k + z
    gradients = [-v if spec.objective == "dot" else z - v]
    for index in range(len(pulls), 0, -1):
        back = lambda w, i=index: jnp.swapaxes(w[i], -1, -2)
        (gradient,) = pulls[index - 1](frozen.apply(gradients[0], back))
        gradients.insert(0, gradient)
    return inputs, gradients
