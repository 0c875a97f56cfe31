r"""Test-time training: an inner model that learns to reconstruct as it reads.

Sun et al. 2024, "Learning to (Learn at Test Time): RNNs with Expressive Hidden States",
arXiv:2407.04620: TTT-Linear and TTT-MLP with mini-batches (section 2.4) in the dual form
(section 2.5), and the token-dependent step of their published JAX code. For every head, an
inner model f of one or two affine layers, and LN with a learned scale and bias::

    loss(W; k, v) = 1/2 |LN(f(k; W)) - (v - k)|^2
    W_t = W_0 - step_t sum_{i <= t} eta_i grad loss(W_0; k_i, v_i)
    y_t = q_t + LN(f(q_t; W_t))

where W_0 are the weights at the start of the chunk of C tokens (the mini-batch) and the sum
is over the chunk; the next chunk starts from the last W_t. The gradient of an affine layer is
`x u^T` with x its input and u what comes back to its output, so a chunk needs the x and u of
its tokens and no matrix per token:

    x W_t + b_t = x W_0 + b_0 - step_t sum_{i <= t} (x^T x_i + 1) eta_i u_i

A chunk ends where the position in the stream is a multiple of C, and where a document ends:
the first chunk of a document that starts inside a chunk is a short one.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.chunks import lay_out


@flax.struct.dataclass
class Affine:
    """One layer of inner models: `x @ w + b`.

    Attributes:
      w: `[..., I, O]` float32.
      b: `[..., O]` float32.
    """

    w: jax.Array
    b: jax.Array


@flax.struct.dataclass
class InnerModel:
    """What the inner models start from, and what they do not change: slow weights.

    Attributes:
      layers: one for TTT-Linear, two with a GELU between them for TTT-MLP, each `[H, ...]`.
      scale_HK, bias_HK: of the LayerNorm on the output.
    """

    layers: tuple[Affine, ...]
    scale_HK: jax.Array
    bias_HK: jax.Array


@flax.struct.dataclass
class Tokens:
    """Inputs of T tokens; float32 is what they are computed in.

    Attributes:
      q_BTHK, k_BTHK, v_BTHK: query, key and value of every token.
      eta_BTH: rate of its gradient.
    """

    q_BTHK: jax.Array
    k_BTHK: jax.Array
    v_BTHK: jax.Array
    eta_BTH: jax.Array


@flax.struct.dataclass
class Written:
    """Gradients `x u^T` of one layer in the chunk that is open; zeros after the last token.

    Attributes:
      x_BHCI: inputs of the layer.
      u_BHCO: what comes back to its output, times eta; 0 for other documents.
    """

    x_BHCI: jax.Array
    u_BHCO: jax.Array


@flax.struct.dataclass
class TTTState:
    """Everything that reading on needs; its size does not depend on what was read.

    Attributes:
      layers: weights at the start of the open chunk, each `[B, H, ...]` float32.
      written: what the open chunk has added, one per layer.
      position: int32 scalar, tokens read modulo C.
      origin_B: int32, where in the open chunk the document starts; 0 if it does before.
    """

    layers: tuple[Affine, ...]
    written: tuple[Written, ...]
    position: jax.Array
    origin_B: jax.Array


def initial_state(model: InnerModel, batch: int, chunk: int) -> TTTState:
    """The state of `batch` streams that have read nothing."""
    layers = jax.tree.map(
        lambda w: jnp.broadcast_to(w[None], (batch, *w.shape)).astype(jnp.float32), model.layers
    )
    return TTTState(
        layers,
        tuple(_nothing(layer, chunk) for layer in layers),
        jnp.zeros((), jnp.int32),
        jnp.zeros((batch,), jnp.int32),
    )


def places(
    chunk: int,
    batch: int,
    time: int,
    state: TTTState | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool = True,
) -> jax.Array:
    """How many tokens of its document each token has before it in its chunk.

    Args:
      chunk: C.
      batch: rows.
      time: tokens; at least 1.
      state: where they go on from; None: fresh.
      reset_BT: True where a document starts; None: nowhere.
      writes: False: tokens that are not written leave the place to the next that is.

    Returns:
      int32 `place_BT`, below C.

    >>> places(4, 1, 6).tolist()
    [[0, 1, 2, 3, 0, 1]]
    >>> places(4, 1, 6, reset_BT=jnp.arange(6)[None] == 2).tolist()
    [[0, 1, 0, 1, 0, 1]]
    """
    position = jnp.zeros((), jnp.int32) if state is None else state.position
    origin_B = jnp.zeros((batch,), jnp.int32) if state is None else state.origin_B
    if not writes:
        place_BT = jnp.broadcast_to((position - origin_B)[:, None], (batch, time))
        return place_BT if reset_BT is None else jnp.where(_restarted(reset_BT), 0, place_BT)
    slot_BT = jnp.broadcast_to(
        (position + jnp.arange(time, dtype=jnp.int32))[None], (batch, time)
    )
    # an origin lies in the first chunk, before the start of any later one
    start_BT = jnp.maximum(slot_BT - slot_BT % chunk, origin_B[:, None])
    if reset_BT is not None:
        document_BT = jax.lax.cummax(jnp.where(reset_BT, slot_BT, 0), axis=1)
        start_BT = jnp.maximum(start_BT, document_BT)
    return slot_BT - start_BT


def read_by_chunk(
    model: InnerModel,
    tokens: Tokens,
    step_C: jax.Array,
    state: TTTState | None = None,
    reset_BT: jax.Array | None = None,
    writes: bool = True,
    *,
    eps: float = 1e-6,
    remat_chunks: int = 4,
) -> tuple[jax.Array, TTTState]:
    """Read and write T tokens in the dual form, T / C steps one after the other.

    Args:
      model: initial inner models, learned LayerNorm.
      tokens: T >= 1 tokens; what is rotated, is so by `places`.
      step_C: factor of the sum of gradients at each place; its length is the chunk.
      state: where to go on from; None: every row starts a document.
      reset_BT: bool, True where a document starts; None: nowhere.
      writes: False reads every token from the weights as they are, and a state comes back
        that only resets have changed.
      eps: added to the variance in LN.
      remat_chunks: the backward pass keeps the weights at every so many chunks and computes
        the rest again.

    Returns:
      float32 `y_BTHK`, and the state after the last token.

    >>> layer = Affine(jnp.zeros((1, 2, 2)), jnp.zeros((1, 2)))
    >>> model = InnerModel((layer,), jnp.ones((1, 2)), jnp.zeros((1, 2)))
    >>> x = jnp.ones((1, 6, 1, 2)) * jnp.array([1.0, -1.0])
    >>> tokens = Tokens(x, x, x, jnp.ones((1, 6, 1)))
    >>> y, state = read_by_chunk(model, tokens, 1 / jnp.arange(1.0, 5.0))
    >>> y.shape, int(state.position)
    ((1, 6, 1, 2), 2)
    """
    batch, time, _, _ = tokens.q_BTHK.shape
    chunk = step_C.shape[0]
    tokens = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2).astype(jnp.float32), tokens)
    fresh = state is None
    if fresh:
        state = initial_state(model, batch, chunk)
        if reset_BT is not None:  # the first token finds nothing to forget
            reset_BT = reset_BT.at[:, 0].set(False)
    place_BT = places(chunk, batch, time, state, reset_BT, writes)
    if not writes:
        y_BHTK, state = _read_only(model, tokens.q_BTHK, step_C, state, reset_BT, place_BT, eps)
        return jnp.swapaxes(y_BHTK, 1, 2), state

    offset = 0 if fresh else state.position
    slots = time if fresh else time + chunk - 1  # behind as many slots as the open chunk has
    count = -(-slots // chunk)
    groups = -(-count // remat_chunks)
    group = -(-count // groups)
    count = groups * group  # chunks without tokens change nothing
    ragged = not fresh or count * chunk != time
    end = offset + time

    def cut(x, axis):
        """Lay out along time behind `offset` slots; split into groups of chunks."""
        if ragged:
            x = lay_out(x, count * chunk, offset, axis)
        x = x.reshape(*x.shape[:axis], groups, group, chunk, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, (axis, axis + 1), (0, 1))

    rows = jax.tree.map(lambda w: w[None].astype(jnp.float32), model.layers)
    step_BT = step_C.astype(jnp.float32)[place_BT]
    parts = (
        jnp.arange(count).reshape(groups, group),
        jax.tree.map(lambda x: cut(x, 2), tokens),
        cut(step_BT, 1),
        None if reset_BT is None else cut(reset_BT, 1),
    )

    def body(carry, part):
        layers, pending = carry
        index, token, step_BC, reset_BC = part
        slot_C = index * chunk + jnp.arange(chunk)
        known_C = None if fresh else slot_C < offset
        exists_C = (slot_C < end) if ragged else None
        document_BC = None if reset_BC is None else jnp.cumsum(reset_BC, 1, dtype=jnp.int32)
        apply = _Weights(rows, layers, document_BC)
        written = _gradients(model, apply, token, eps)
        written = _keep_slots(written, pending, known_C, exists_C)
        read_BHCK = _read(model, apply, token.q_BTHK, written, _seen(step_BC, document_BC), eps)
        base, written = apply.last(written)
        after = _stepped(base, written, step_BC[:, -1])
        if not ragged:
            return (after, pending), read_BHCK
        complete, begun = (index + 1) * chunk <= end, index * chunk < end
        layers = _choose(complete, after, _choose(begun, base, layers))
        nothing = jax.tree.map(jnp.zeros_like, pending)
        pending = _choose(complete, nothing, _choose(begun, written, pending))
        return (layers, pending), read_BHCK

    # a group is recomputed as a whole, so that only the weights before it are kept
    run_group = jax.checkpoint(
        lambda carry, parts: jax.lax.scan(body, carry, parts), prevent_cse=False
    )
    (layers, written), y_NGBHCK = jax.lax.scan(run_group, (state.layers, state.written), parts)
    y_BHNGCK = jnp.moveaxis(y_NGBHCK, (0, 1), (2, 3))
    y_BHTK = y_BHNGCK.reshape(*y_BHNGCK.shape[:2], count * chunk, -1)
    if ragged:
        y_BHTK = jax.lax.dynamic_slice_in_dim(y_BHTK, offset, time, 2)
    position = jnp.asarray(end % chunk, jnp.int32)
    origin_B = jnp.where(position == 0, 0, position - 1 - place_BT[:, -1])
    return jnp.swapaxes(y_BHTK, 1, 2), TTTState(layers, written, position, origin_B)


def read_token_by_token(
    model: InnerModel,
    tokens: Tokens,
    step_C: jax.Array,
    state: TTTState | None = None,
    reset_BT: jax.Array | None = None,
    *,
    eps: float = 1e-6,
) -> tuple[jax.Array, TTTState]:
    """The same function as `read_by_chunk`, one token at a time: for a few tokens."""
    batch, time, _, _ = tokens.q_BTHK.shape
    chunk = step_C.shape[0]
    rows = jax.tree.map(lambda w: w[None].astype(jnp.float32), model.layers)
    if state is None:
        state = initial_state(model, batch, chunk)
    tokens = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2).astype(jnp.float32), tokens)

    def step(state: TTTState, part):
        token, reset_B = part
        if reset_B is not None:
            state = _forget(rows, state, reset_B)
        apply = _Weights(rows, state.layers)
        new = _gradients(model, apply, token, eps)
        written = jax.tree.map(
            lambda all, one: jax.lax.dynamic_update_slice_in_dim(all, one, state.position, 2),
            state.written,
            new,
        )
        step_B = step_C.astype(jnp.float32)[state.position - state.origin_B]
        # slots after this token hold zeros
        weigh_BTC = jnp.broadcast_to(step_B[:, None, None], (batch, 1, chunk))
        y_BHTK = _read(model, apply, token.q_BTHK, written, weigh_BTC, eps)
        full = state.position + 1 == chunk

        def close(layers, written):
            nothing = jax.tree.map(jnp.zeros_like, written)
            return _stepped(layers, written, step_B), nothing, jnp.zeros_like(state.origin_B)

        def keep(layers, written):
            return layers, written, state.origin_B

        layers, written, origin_B = jax.lax.cond(full, close, keep, state.layers, written)
        state = TTTState(layers, written, (state.position + 1) % chunk, origin_B)
        return state, y_BHTK[:, :, 0]

    per_token = jax.tree.map(lambda x: jnp.expand_dims(jnp.moveaxis(x, 2, 0), 3), tokens)
    reset_TB = None if reset_BT is None else reset_BT.T
    state, y_TBHK = jax.lax.scan(step, state, (per_token, reset_TB))
    return jnp.moveaxis(y_TBHK, 0, 1), state


class _Weights:
    """Products with the weights that each token of a chunk starts from."""

    def __init__(self, rows, layers, document_BC=None):
        self.rows, self.layers, self.document_BC = rows, layers, document_BC
        if document_BC is not None:
            self.restarted_BC = document_BC > 0
            self.any_restarted = jnp.any(self.restarted_BC)

    def affine(self, index: int, x_BHCI: jax.Array) -> jax.Array:
        """Layer `index`: of the document's start where that is inside of the chunk."""
        here = lambda x: _affine(self.layers[index], x)
        if self.document_BC is None:
            return here(x_BHCI)

        def both(x):
            return jnp.where(
                self.restarted_BC[:, None, :, None], _affine(self.rows[index], x), here(x)
            )

        # few chunks have a start; a whole chunk in a branch would be kept twice
        return jax.lax.cond(self.any_restarted, both, here, x_BHCI)

    def back(self, index: int, u_BHCO: jax.Array) -> jax.Array:
        """From the output of layer `index` to its input."""
        here = lambda u: _back(self.layers[index], u)
        if self.document_BC is None:
            return here(u_BHCO)

        def both(u):
            return jnp.where(
                self.restarted_BC[:, None, :, None], _back(self.rows[index], u), here(u)
            )

        return jax.lax.cond(self.any_restarted, both, here, u_BHCO)

    def last(self, written: tuple[Written, ...]):
        """Weights that the last token's document starts from, and what it alone wrote."""
        if self.document_BC is None:
            return self.layers, written
        last_B = self.document_BC[:, -1:]
        own_BC = self.document_BC == last_B
        base = _choose(last_B[:, 0] > 0, self.rows, self.layers)
        own = lambda w: w.replace(u_BHCO=jnp.where(own_BC[:, None, :, None], w.u_BHCO, 0.0))
        return base, tuple(own(w) for w in written)


def _affine(layer: Affine, x_BHCI: jax.Array) -> jax.Array:
    w_BHIO = jnp.broadcast_to(layer.w, (x_BHCI.shape[0], *layer.w.shape[1:]))
    return jnp.einsum("bhci,bhio->bhco", x_BHCI, w_BHIO) + layer.b[:, :, None]


def _back(layer: Affine, u_BHCO: jax.Array) -> jax.Array:
    w_BHIO = jnp.broadcast_to(layer.w, (u_BHCO.shape[0], *layer.w.shape[1:]))
    return jnp.einsum("bhco,bhio->bhci", u_BHCO, w_BHIO)


def _gradients(
    model: InnerModel, apply: _Weights, token: Tokens, eps: float
) -> tuple[Written, ...]:
    """Gradients of the reconstruction at the weights that `apply` knows, times eta."""
    x, inputs, pulls = token.k_BTHK, [], []
    for index in range(len(model.layers)):
        inputs.append(x)
        z = apply.affine(index, x)
        if index + 1 < len(model.layers):
            x, pull = jax.vjp(jax.nn.gelu, z)
            pulls.append(pull)
    unit, inverse = _standardise(z, eps)
    scale, bias = model.scale_HK[None, :, None], model.bias_HK[None, :, None]
    error = unit * scale + bias - (token.v_BTHK - token.k_BTHK)
    d = error * scale
    mean = lambda x: jnp.mean(x, axis=-1, keepdims=True)
    u = inverse * (d - mean(d) - unit * mean(d * unit)) * token.eta_BTH[..., None]
    written = []
    for index in reversed(range(len(model.layers))):
        written.append(Written(inputs[index], u))
        if index > 0:
            (u,) = pulls[index - 1](apply.back(index, u))
    return tuple(reversed(written))


def _read(model, apply, q_BHTK, written, weigh_BTC, eps) -> jax.Array:
    """`q + LN(f(q))`, with the gradients of the chunk weighed as each token sees them."""
    x = q_BHTK
    for index, layer in enumerate(written):
        score_BHTC = jnp.einsum("bhti,bhci->bhtc", x, layer.x_BHCI) + 1.0
        score_BHTC = score_BHTC * weigh_BTC[:, None]
        z = apply.affine(index, x) - jnp.einsum("bhtc,bhco->bhto", score_BHTC, layer.u_BHCO)
        if index + 1 < len(written):
            x = jax.nn.gelu(z)
    unit, _ = _standardise(z, eps)
    return q_BHTK + unit * model.scale_HK[None, :, None] + model.bias_HK[None, :, None]


def _standardise(z: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    centred = z - jnp.mean(z, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    return centred * inverse, inverse


def _seen(step_BC: jax.Array, document_BC: jax.Array | None) -> jax.Array:
    """What token t multiplies gradient c with: its step, or 0 for what it does not see."""
    chunk = step_BC.shape[1]
    seen = jnp.tril(jnp.ones((chunk, chunk), bool))[None]
    if document_BC is not None:
        seen = seen & (document_BC[:, :, None] == document_BC[:, None])
    return jnp.where(seen, step_BC[:, :, None], 0.0)


def _stepped(layers, written, step_B: jax.Array) -> tuple[Affine, ...]:
    """The weights after the gradients of a chunk."""
    new = []
    for layer, part in zip(layers, written, strict=True):
        u_BHCO = step_B[:, None, None, None] * part.u_BHCO
        w = layer.w - jnp.einsum("bhci,bhco->bhio", part.x_BHCI, u_BHCO)
        new.append(Affine(w, layer.b - u_BHCO.sum(2)))
    return tuple(new)


def _keep_slots(written, pending, known_C, exists_C):
    """Slots of an earlier call as it left them, zeros where there is no token."""
    if known_C is not None:
        written = _choose(known_C, pending, written, axis=2)
    if exists_C is not None:
        written = _choose(exists_C, written, jax.tree.map(jnp.zeros_like, written), axis=2)
    return written


def _choose(condition, yes, no, axis=0):
    """Where the condition holds, which is a scalar or one value per index of `axis`."""

    def choose(a, b):
        b = jnp.broadcast_to(b, jnp.broadcast_shapes(a.shape, b.shape))
        a = jnp.broadcast_to(a, b.shape)
        if condition.ndim == 0:
            return jnp.where(condition, a, b)
        shape = [1] * a.ndim
        shape[axis] = -1
        return jnp.where(condition.reshape(shape), a, b)

    return jax.tree.map(choose, yes, no)


def _nothing(layer: Affine, chunk: int) -> Written:
    *lead, inputs, outputs = layer.w.shape
    return Written(
        jnp.zeros((*lead, chunk, inputs), jnp.float32),
        jnp.zeros((*lead, chunk, outputs), jnp.float32),
    )


def _restarted(reset_BT: jax.Array) -> jax.Array:
    return jnp.cumsum(reset_BT, axis=1, dtype=jnp.int32) > 0


def _forget(rows, state: TTTState, reset_B: jax.Array) -> TTTState:
    """Rows whose document starts have the initial weights, and nothing written."""
    nothing = lambda w: w.replace(u_BHCO=jnp.zeros_like(w.u_BHCO))
    return TTTState(
        _choose(reset_B, rows, state.layers),
        tuple(_choose(reset_B, nothing(w), w) for w in state.written),
        state.position,
        jnp.where(reset_B, state.position, state.origin_B),
    )


def _read_only(model, q_BHTK, step_C, state, reset_BT, place_BT, eps):
    """Read from the weights as they are, and as they are at first after a reset."""
    rows = jax.tree.map(lambda w: w[None].astype(jnp.float32), model.layers)
    document_BT = None
    # the step of the last token that was written; where there is none, nothing was written
    last_BT = jnp.maximum(place_BT - 1, 0)
    weigh_BT = step_C.astype(jnp.float32)[last_BT]
    if reset_BT is not None:
        document_BT = jnp.cumsum(reset_BT, axis=1, dtype=jnp.int32)
        weigh_BT = jnp.where(document_BT > 0, 0.0, weigh_BT)
    apply = _Weights(rows, state.layers, document_BT)
    weigh_BTC = jnp.broadcast_to(weigh_BT[..., None], (*weigh_BT.shape, step_C.shape[0]))
    y_BHTK = _read(model, apply, q_BHTK, state.written, weigh_BTC, eps)
    if reset_BT is not None:
        state = _forget(rows, state, jnp.any(reset_BT, axis=1))
    return y_BHTK, state
