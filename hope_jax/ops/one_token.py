"""One token of the self-modifying recurrence, in few passes over the weights.

The same function as `self_modifying.read_token_by_token`, for writing text. A product of a
vector and a matrix takes the time to read the matrix; a few rows more are nearly free. So
rows that meet the same weights go together, and no memory is cut out of its stack, which
would copy it. Three products with all first layers, and three with all second layers::

    [source of every generator] W     frozen     k, v and the rates
    [k; v] W                          frozen     gradients
    [k; q] W                          running    what the write decays, and what is read

The last one also puts the read before the write, so that the new memories can take the
place of the old ones; otherwise the compiler keeps a copy for a read that may come later.

Arrays are `[B, H, ...]`; R are rows, M memories, Z the columns of all first layers.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.chunks import FastWeights
from hope_jax.ops.dgd import Gates, Rule
from hope_jax.ops.memory import (
    Evaluation,
    Frozen,
    Memories,
    MemorySpec,
    View,
    apart,
    by_memory,
    evaluate_stack,
    loss_gradient,
    second_layer_input,
    thin_matmul,
    through_hidden,
    together,
)
from hope_jax.ops.self_modifying import (
    Group,
    Inputs,
    Reading,
    RecurrentState,
    SelfModifyingSpec,
    decay_target,
    read_token_by_token,
    signals,
)


def read_few_tokens(
    spec: SelfModifyingSpec,
    initial: tuple[Memories, ...],
    inputs: Inputs,
    state: RecurrentState | None = None,
) -> Reading:
    """`read_token_by_token`, faster. Same arguments and result."""
    matrix = any(group.spec.kind == "linear" for group in spec.groups)
    # matrix memories have no second layers to bring together
    step = None if matrix else _step_group
    return read_token_by_token(spec, initial, inputs, state, step)


@flax.struct.dataclass
class _LayerWrite:
    """What one stack of layers is written with.

    Attributes:
      x_1K: input.
      g_1Z: gradient at the output.
      eta_11: learning rates.
      rule: "dgd" or "gd".
    """

    x_1K: jax.Array
    g_1Z: jax.Array
    eta_11: jax.Array
    rule: Rule = flax.struct.field(pytree_node=False)


def _step_group(
    spec: SelfModifyingSpec, group: Group, first: FastWeights, state: FastWeights, token: Inputs
) -> tuple[Inputs, jax.Array | None, FastWeights]:
    """One token of one group; arrays of `token` keep a time axis of length 1."""
    memory, running = group.spec, state.running
    token = _generate(spec, memory, state.frozen, token)
    gates = Gates(token.eta, token.alpha, token.mu, token.valid)
    gates = jax.tree.map(lambda g: jnp.broadcast_to(g, token.eta.shape)[..., 0], gates).masked()
    writes = _layer_writes(spec, memory, state.frozen, token, gates.eta)
    y, q_1K = None, None
    if "memory" in memory.values and spec.read == "chunk_start":
        names = memory.values[: memory.mains]
        out = _evaluate_each(memory, state.frozen, dict.fromkeys(names, token.q))
        y = together(token.q[:, :, None] + jnp.stack([out[n] for n in names], axis=2))
    elif "memory" in memory.values:
        q_1K = token.q
    reads, q_out = _read(memory, running, writes, q_1K)
    if q_out is not None:
        y = together(q_1K[:, :, None] + q_out)
    new, momentum = {}, {}
    toward = decay_target(spec, first.running)
    for name, write in writes.items():
        old = None if state.momentum is None else getattr(state.momentum, name)
        target = None if toward is None else getattr(toward, name)
        new[name], momentum[name] = _write(
            getattr(running, name), old, write, reads[name], gates, target
        )
    momentum = None if state.momentum is None else Memories(**momentum)
    return token, y, FastWeights(Memories(**new), state.frozen, momentum)


def _generate(
    spec: SelfModifyingSpec, memory: MemorySpec, frozen: Memories, token: Inputs
) -> Inputs:
    """k, v, q and the rates, where they are not given; all memories in one pass."""
    sources = {
        "k": token.k_source if token.k is None else None,
        "v": token.v_source if token.v is None else None,
        "q": token.q_source if token.q is None else None,
        "eta": token.rate_source if token.eta is None else None,
        "alpha": token.rate_source if token.alpha is None else None,
    }
    sources = {n: x for n, x in sources.items() if x is not None and n in memory.widths}
    out = _evaluate_each(memory, frozen, sources) if sources else {}

    def evaluate(name: str, source: jax.Array) -> jax.Array:
        return source + out[name] if name in memory.values else out[name][..., 0]

    return signals(spec, memory, token, evaluate)


def _evaluate_each(
    memory: MemorySpec, weights: Memories, inputs: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Some memories, each at an input of its own, without the residual path.

    Args:
      memory: the group.
      weights: of the group.
      inputs: `[B, H, 1, K]` by name.

    Returns:
      `[B, H, 1, O]` by name.
    """
    rows = list({id(x): x for x in inputs.values()}.values())
    row = {name: [x is r for r in rows].index(True) for name, x in inputs.items()}
    pre_RZ = jnp.concatenate(rows, axis=-2) @ weights.w_in
    value, rate = by_memory(memory, pre_RZ)
    out = {}
    for names, pre, layer in (
        (memory.values, value, lambda w: w.w_value),
        (memory.rates, rate, lambda w: w.w_rate),
    ):
        if not any(name in inputs for name in names):
            continue
        # memories that nobody asked for see some row and are not looked at
        own = [pre[:, :, m, row.get(name, 0), None] for m, name in enumerate(names)]
        result = evaluate_stack(memory, layer, _whole(weights), jnp.stack(own, axis=2)).out
        out |= {name: result[:, :, m] for m, name in enumerate(names) if name in inputs}
    return out


def _layer_writes(
    spec: SelfModifyingSpec,
    memory: MemorySpec,
    frozen: Memories,
    token: Inputs,
    eta: jax.Array,
) -> dict[str, _LayerWrite]:
    """Inputs and gradients of all layers at the frozen state (`memory.local_gradients`)."""
    k_M1K, v_M1K = token.k[:, :, None], token.v[:, :, None]
    outer = spec.rule if spec.scope == "per_layer" else "gd"
    value, rate = _evaluate(memory, frozen, jnp.concatenate([token.k, token.v], axis=-2))
    writes, in_1Z = {}, []

    def add(name: str, at_key: Evaluation, gradient: jax.Array) -> None:
        in_1Z.append(_before_hidden(memory, at_key, gradient, getattr(frozen, name)))
        x, g, rates = second_layer_input(memory, at_key, gradient, eta[..., None, None, None])
        writes[name] = _LayerWrite(x, g, rates, outer)

    at_key, at_value = _rows(value)
    target = v_M1K if memory.targets == "shared" else v_M1K + at_value.out
    add("w_value", at_key, loss_gradient(memory, k_M1K + at_key.out, target))
    if rate is not None:
        at_key, at_value = _rows(rate)
        add("w_rate", at_key, loss_gradient(memory, at_key.out, at_value.out))
    in_1Z = jnp.concatenate(in_1Z, axis=-1)
    writes["w_in"] = _LayerWrite(token.k, in_1Z, eta[..., None, None], spec.rule)
    return writes


def _read(
    memory: MemorySpec,
    running: Memories,
    writes: dict[str, _LayerWrite],
    q_1K: jax.Array | None,
) -> tuple[dict[str, jax.Array], jax.Array | None]:
    """`x W` of every layer that is written, and what the main memory says to `q`.

    Returns:
      The products by name, and `[B, H, M, 1, K]` of the parts of the main memory without
      the residual path, or None.
    """
    rows = {name: write.x_1K for name, write in writes.items()}
    if q_1K is not None:
        rows["w_in"] = jnp.concatenate([rows["w_in"], q_1K], axis=-2)
    out = {"w_in": rows["w_in"] @ running.w_in}
    if q_1K is not None:
        pre_1Z = out["w_in"][..., 1:, : len(memory.values) * memory.hidden]
        # every memory is asked, the main one is listened to
        hidden_M1F = memory.hidden_layer(apart(pre_1Z, len(memory.values)))
        rows["w_value"] = jnp.concatenate([rows["w_value"], hidden_M1F], axis=-2)
    for name, x in rows.items():
        if name != "w_in":
            out[name] = thin_matmul(x, getattr(running, name))
    reads = {name: product[..., :1, :] for name, product in out.items()}
    if q_1K is None:
        return reads, None
    return reads, out["w_value"][:, :, : memory.mains, 1:]


def _evaluate(
    memory: MemorySpec, weights: Memories, x_RK: jax.Array
) -> tuple[Evaluation, Evaluation | None]:
    """All memories at every row: the value memories and the rate memories."""
    value, rate = by_memory(memory, x_RK @ weights.w_in)
    whole = _whole(weights)
    value = evaluate_stack(memory, lambda w: w.w_value, whole, value)
    if rate is not None:
        rate = evaluate_stack(memory, lambda w: w.w_rate, whole, rate)
    return value, rate


def _before_hidden(
    memory: MemorySpec, at_key: Evaluation, gradient: jax.Array, w: jax.Array
) -> jax.Array:
    """Carry `gradient` `[B, H, M, 1, O]` through the layers `w`: `[B, H, 1, M F]`.

    The weights stand on the left, because a transposed stack would be a copy.
    """
    if w.shape[-1] == 1:
        d_hidden = gradient * jnp.swapaxes(w, -1, -2)
    else:
        d_hidden = jnp.swapaxes(w @ jnp.swapaxes(gradient, -1, -2), -1, -2)
    d_pre = through_hidden(memory, at_key, d_hidden)
    return d_pre.reshape(*d_pre.shape[:2], 1, -1)


def _write(
    w_KZ: jax.Array,
    s_KZ: jax.Array | None,
    write: _LayerWrite,
    read_1Z: jax.Array,
    gates: Gates,
    toward_KZ: jax.Array | None,
) -> tuple[jax.Array, jax.Array | None]:
    """`dgd.dgd_step` where `x W` is at hand and the gates are masked."""

    def gate(value: jax.Array) -> jax.Array:
        return value.reshape(*value.shape, *(1,) * (w_KZ.ndim - value.ndim))

    x_K1 = jnp.swapaxes(write.x_1K, -1, -2)
    step_KZ = x_K1 * (write.eta_11 * write.g_1Z)
    new_KZ = gate(gates.alpha) * w_KZ
    if toward_KZ is not None:
        new_KZ = new_KZ + gate(1 - gates.alpha) * toward_KZ
    if write.rule == "dgd":
        new_KZ = new_KZ - x_K1 * (write.eta_11 * read_1Z)
    if s_KZ is None:
        return new_KZ - step_KZ, None
    s_KZ = gate(gates.mu) * s_KZ - step_KZ
    return new_KZ + jnp.where(gate(gates.valid), s_KZ, 0.0), s_KZ


def _rows(evaluation: Evaluation) -> tuple[Evaluation, Evaluation]:
    """The first and the second row of an evaluation."""
    first = jax.tree.map(lambda x: x[..., :1, :], evaluation)
    return first, jax.tree.map(lambda x: x[..., 1:, :], evaluation)


def _whole(weights: Memories) -> Frozen:
    """The stacks, not taken apart."""
    return Frozen(View(weights.w_in, weights.w_value, weights.w_rate, {}, {}))
