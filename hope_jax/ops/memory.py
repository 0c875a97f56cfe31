r"""Memories: parametric key-to-value maps that are written in context (Eqs. 89, 92-93).

All memories of a layer share the key, the learning rate and the retention, so their
first layers are stacked into one wide matrix: one matmul evaluates them all, one
triangular system writes them all. Two kinds:

* "mlp" (Eq. 89): `M(z) = z + norm(act(z W_in)) W_out`. A *rate* memory (eta, alpha) has
  one output and no residual: `M(z) = norm(act(z W_in)) w_out`.
* "linear" (Eqs. 92-93): `M(z) = z W`, the matrix memory; a rate memory is one column.

The gradients of the inner loss are written out, not taken by autodiff: they are short,
the targets are constants by definition (Eqs. 92-93), and the outer gradient then
differentiates plain matmuls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.own_gradient import own_gradient

_NORM_EPS = 1e-6
# Hidden layers have squared lengths of about F / 2. When a memory has been forgotten they
# vanish, and a smaller constant would let their gradient grow a thousandfold.
_HIDDEN_EPS = 1e-2
ACTIVATIONS = {"gelu": jax.nn.gelu, "silu": jax.nn.silu}


@dataclasses.dataclass(frozen=True)
class MemorySpec:
    """What the memories of one group are; static under jit.

    Attributes:
      values: names of the memories that map K to K, among "memory", "k", "v", "q". The main
        memory "memory" comes first; "memory_1", "memory_2", ... beside it widen what it says.
      rates: names of the memories that map K to a scalar, among "eta", "alpha".
      size: K, the size of keys and values per head.
      hidden: hidden width of each value memory (kind "mlp").
      rate_hidden: hidden width of each rate memory (kind "mlp").
      kind: "mlp" or "linear".
      activation: sigma of Eq. 89.
      hidden_norm: "l2" gives the second layer unit inputs, for which delta gradient
        descent was derived (Eq. 57 with lambda = 1); "centred" takes their mean off first,
        so that hidden layers of unrelated keys share less; "none" is Eq. 89 as printed.
      objective: inner loss, "l2" (Eq. 93) or "dot" (Eq. 92, sign corrected).
      grad_factor: 2 keeps the factor of the squared norm's gradient, 1 drops it.
      targets: "generated" v_hat = M(v) by every memory (Eq. 88), or "shared": the value
        v itself for value memories (Eqs. 79-82).
    """

    values: tuple[str, ...]
    rates: tuple[str, ...]
    size: int
    hidden: int
    rate_hidden: int
    kind: Literal["mlp", "linear"] = "mlp"
    activation: Literal["gelu", "silu"] = "gelu"
    hidden_norm: Literal["l2", "centred", "none"] = "l2"
    objective: Literal["l2", "dot"] = "l2"
    grad_factor: float = 1.0
    targets: Literal["generated", "shared"] = "generated"

    @property
    def widths(self) -> dict[str, int]:
        """Columns of `w_in` that belong to each memory, in order."""
        value, rate = (self.hidden, self.rate_hidden) if self.kind == "mlp" else (self.size, 1)
        return {**dict.fromkeys(self.values, value), **dict.fromkeys(self.rates, rate)}

    @property
    def mains(self) -> int:
        """Parts of the main memory, which are the first of `values`; 0 if it is elsewhere."""
        return sum(name.partition("_")[0] == "memory" for name in self.values)

    @property
    def blocks(self) -> dict[str, int]:
        """`widths` with the parts of the main memory as one."""
        widths = dict(self.widths)
        parts = [widths.pop(name) for name in self.values[: self.mains]]
        return {"memory": sum(parts), **widths} if parts else widths

    def columns(self, name: str) -> slice:
        """Where a memory sits in the last axis of `w_in`."""
        start = 0
        for other, width in self.widths.items():
            if other == name:
                return slice(start, start + width)
            start += width
        raise KeyError(name)

    def hidden_layer(self, pre: jax.Array) -> jax.Array:
        """Input of the second layer from its pre-activations."""
        return _hidden(self, pre)[0]

    @property
    def act(self) -> Callable[[jax.Array], jax.Array]:
        return ACTIVATIONS[self.activation]


@flax.struct.dataclass
class Memories:
    """Weights (or momenta) of a group of memories.

    Attributes:
      w_in: `[..., K, Z]` first layers of all memories side by side.
      w_value: `[..., M, F, K]` second layers of the value memories; None if linear.
      w_rate: `[..., M, F, 1]` second layers of the rate memories; None if there are none.
    """

    w_in: jax.Array
    w_value: jax.Array | None = None
    w_rate: jax.Array | None = None


def thin_matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """`x @ w`, element by element where `w` has a single row or column.

    A rate memory has one output. As batches of matrix products these vectors cost a CPU
    more than all value memories together.
    """
    if w.shape[-1] == 1:
        return jnp.sum(x * jnp.swapaxes(w, -1, -2), axis=-1, keepdims=True)
    return x * w if w.shape[-2] == 1 else x @ w


@own_gradient
def _fresh_matmul(
    x: jax.Array, w: jax.Array, initial: jax.Array, fresh: jax.Array
) -> jax.Array:
    """`x @ initial` where `fresh`, `x @ w` elsewhere; one product where nothing is fresh.

    The backward pass takes the branch anew. Left to autodiff, a branch hands on what both
    branches would save, and the usual one fills the other's share with zeros.
    """
    return jax.lax.cond(jnp.any(fresh), _select_matmul, _usual_matmul, x, w, initial, fresh)


def _usual_matmul(x, w, initial, fresh):
    del initial, fresh
    return thin_matmul(x, w)


def _select_matmul(x, w, initial, fresh):
    return jnp.where(fresh, thin_matmul(x, initial), thin_matmul(x, w))


def _fresh_forward(x, w, initial, fresh):
    return _fresh_matmul(x, w, initial, fresh), (x, w, initial, fresh)


def _fresh_backward(saved, d_out):
    *operands, fresh = saved

    def pull(matmul):
        return lambda: jax.vjp(lambda *args: matmul(*args, fresh), *operands)[1](d_out)

    grads = jax.lax.cond(jnp.any(fresh), pull(_select_matmul), pull(_usual_matmul))
    return *grads, None


_fresh_matmul.defvjp(_fresh_forward, _fresh_backward)


@flax.struct.dataclass
class View:
    """Memories, and the same weights taken apart by name.

    Taking them apart once keeps the backward pass from padding and adding whole stacks
    for every memory that is evaluated alone.

    Attributes:
      w_in, w_value, w_rate: as in `Memories`.
      first: `[..., K, F]` first layer of each memory; of "memory", its parts side by side.
      second: `[..., F, O]` second layer of each memory; of "memory" `[..., M, F, O]`, all
        its parts; empty if linear.
    """

    w_in: jax.Array
    w_value: jax.Array | None
    w_rate: jax.Array | None
    first: dict[str, jax.Array]
    second: dict[str, jax.Array]


def view(spec: MemorySpec, memories: Memories) -> View:
    """Take the stacks of a group apart."""
    names, widths = list(spec.blocks), list(spec.blocks.values())
    first = dict(
        zip(
            names,
            jax.lax.split(memories.w_in, widths, axis=memories.w_in.ndim - 1),
            strict=True,
        )
    )
    second = {}
    for stack, members in ((memories.w_value, spec.values), (memories.w_rate, spec.rates)):
        if stack is not None:
            parts = spec.mains if members is spec.values else 0
            names = (["memory"] if parts else []) + list(members[parts:])
            sizes = ([parts] if parts else []) + [1] * len(members[parts:])
            layers = jax.lax.split(stack, sizes, axis=stack.ndim - 3)
            second |= {
                n: layer if n == "memory" else layer[..., 0, :, :]
                for n, layer in zip(names, layers, strict=True)
            }
    return View(memories.w_in, memories.w_value, memories.w_rate, first, second)


@flax.struct.dataclass
class Frozen:
    """The state that a chunk's evaluations see.

    Attributes:
      weights: memories at the start of the chunk: a `View`, or what `layer` picks from.
      initial: memories at the start of a document, for tokens after a reset.
      fresh_C: bool `[..., C]`, True where a token sees `initial`; None: nowhere.
    """

    weights: Any
    initial: Any = None
    fresh_C: jax.Array | None = None

    def apply(self, x: jax.Array, layer: Callable[[Any], jax.Array]) -> jax.Array:
        """`x @ layer(weights)`, with the initial weights where a token is fresh."""
        if self.fresh_C is None:
            return thin_matmul(x, layer(self.weights))
        fresh = self.fresh_C.reshape(
            *self.fresh_C.shape[:-1], *(1,) * (x.ndim - self.fresh_C.ndim - 1), -1, 1
        )
        return _fresh_matmul(x, layer(self.weights), layer(self.initial), fresh)


@flax.struct.dataclass
class Evaluation:
    """One stack of memories of equal shape, evaluated.

    Attributes:
      out: `[..., M, C, O]` output of the second layer, residual path excluded.
      hidden: `[..., M, C, F]` input of the second layer.
      scale: `[..., M, C, 1]` norm factor of the hidden layer, or None.
      pre: `[..., M, C, F]` pre-activations.
    """

    out: jax.Array
    hidden: jax.Array
    scale: jax.Array | None
    pre: jax.Array


def l2_normalise(x: jax.Array) -> jax.Array:
    """Unit length along the last axis; zero stays zero."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + _NORM_EPS)


def rms_normalise(x: jax.Array) -> jax.Array:
    """Unit mean square along the last axis; zero stays zero."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + _NORM_EPS)


def evaluate(spec: MemorySpec, name: str, frozen: Frozen, z_CK: jax.Array) -> jax.Array:
    """One memory of the group: `M_name(z)`.

    Args:
      spec: the group.
      name: which memory.
      frozen: weights to see.
      z_CK: `[..., C, K]` inputs.

    Returns:
      `[..., C, K]` for a value memory (of "memory", its parts one after the other),
      `[..., C]` for a rate memory.
    """
    pre_CF = frozen.apply(z_CK, lambda w: w.first[name])
    if spec.kind == "linear":
        return pre_CF if name in spec.values else pre_CF[..., 0]
    if name == "memory":
        hidden_MCF, _ = _hidden(spec, apart(pre_CF, spec.mains))
        out_MCK = frozen.apply(hidden_MCF, lambda w: w.second[name])
        return together(z_CK[..., None, :, :] + out_MCK)
    hidden_CF, _ = _hidden(spec, pre_CF)
    out = frozen.apply(hidden_CF, lambda w: w.second[name])
    return z_CK + out if name in spec.values else out[..., 0]


def evaluate_stack(
    spec: MemorySpec, layer: Callable[[View], jax.Array], frozen: Frozen, pre: jax.Array
) -> Evaluation:
    """All value (or all rate) memories of an "mlp" group from their pre-activations.

    Args:
      spec: the group.
      layer: picks the second layers, `w_value` or `w_rate`.
      frozen: weights to see.
      pre: `[..., M, C, F]`.
    """
    hidden, scale = _hidden(spec, pre)
    return Evaluation(frozen.apply(hidden, layer), hidden, scale, pre)


@flax.struct.dataclass
class LocalGradients:
    """Gradients of the inner losses of a group at its frozen state.

    Attributes:
      in_CZ: at the output of `w_in`.
      value, rate: `[..., M, C, O]` at the output of the second layers; None if linear.
      at_key_CZ: pre-activations at the key (`k W_in` of the frozen state).
      value_at_key, rate_at_key: evaluations at the key.
    """

    in_CZ: jax.Array
    at_key_CZ: jax.Array
    value: jax.Array | None = None
    rate: jax.Array | None = None
    value_at_key: Evaluation | None = None
    rate_at_key: Evaluation | None = None


def local_gradients(
    spec: MemorySpec, frozen: Frozen, k_CK: jax.Array, v_CK: jax.Array
) -> LocalGradients:
    """Gradient of `L(M; k, v_hat)` with `v_hat = M(v)` held constant, for every memory.

    Eq. 93 (`M(k) - v_hat`) or the sign-corrected Eq. 92 (`-v_hat`).

    Args:
      spec: the group.
      frozen: the state at which gradients are taken.
      k_CK: `[..., C, K]` keys.
      v_CK: `[..., C, K]` values.
    """
    at_key_CZ = frozen.apply(k_CK, lambda w: w.w_in)
    at_value_CZ = frozen.apply(v_CK, lambda w: w.w_in)
    if spec.kind == "linear":
        target_CZ = at_value_CZ
        if spec.targets == "shared":
            shared_CZ = jnp.concatenate([v_CK] * len(spec.values), axis=-1)
            target_CZ = target_CZ.at[..., : shared_CZ.shape[-1]].set(shared_CZ)
        return LocalGradients(
            in_CZ=loss_gradient(spec, at_key_CZ, target_CZ), at_key_CZ=at_key_CZ
        )

    value_layer, rate_layer = (lambda w: w.w_value), (lambda w: w.w_rate)
    key_value, key_rate = by_memory(spec, at_key_CZ)
    target_value, target_rate = by_memory(spec, at_value_CZ)
    key = evaluate_stack(spec, value_layer, frozen, key_value)
    k_1CK, v_1CK = k_CK[..., None, :, :], v_CK[..., None, :, :]
    if spec.targets == "shared":
        target = jnp.broadcast_to(v_1CK, key.out.shape)
    else:
        target = v_1CK + evaluate_stack(spec, value_layer, frozen, target_value).out
    value = loss_gradient(spec, k_1CK + key.out, target)
    parts = [_through_hidden(spec, key, frozen, value, value_layer)]
    rate = rate_at_key = None
    if spec.rates:
        rate_at_key = evaluate_stack(spec, rate_layer, frozen, key_rate)
        rate_target = evaluate_stack(spec, rate_layer, frozen, target_rate).out
        rate = loss_gradient(spec, rate_at_key.out, rate_target)
        parts.append(_through_hidden(spec, rate_at_key, frozen, rate, rate_layer))
    return LocalGradients(
        in_CZ=jnp.concatenate(parts, axis=-1),
        at_key_CZ=at_key_CZ,
        value=value,
        rate=rate,
        value_at_key=key,
        rate_at_key=rate_at_key,
    )


def second_layer_input(
    spec: MemorySpec, at_key: Evaluation, gradient: jax.Array, eta: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a second layer is written with: unit input, gradient, learning rate.

    With unit hidden layers these are the evaluation's own. Otherwise the exact proximal
    step of delta gradient descent for an input of length `l` (Eq. 56 solved
    exactly) has the rate `eta / (1 + eta l^2)`; in terms of the unit input that is
    a decay rate `eta l^2 / (1 + eta l^2)` and a gradient divided by `l`.

    Args:
      spec: the group.
      at_key: evaluation at the key, `[..., M, C, F]`.
      gradient: `[..., M, C, O]` at the output.
      eta: `[..., 1, C, 1]` learning rates.
    """
    if spec.hidden_norm != "none":
        return at_key.hidden, gradient, eta
    square = jnp.sum(jnp.square(at_key.hidden), axis=-1, keepdims=True) + _NORM_EPS
    inverse = jax.lax.rsqrt(square)
    return at_key.hidden * inverse, gradient * inverse, eta * square / (1 + eta * square)


def _hidden(spec: MemorySpec, pre: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    return hidden_layer(pre, spec.act, spec.hidden_norm)


def hidden_layer(
    pre: jax.Array,
    act: Callable[[jax.Array], jax.Array],
    norm: Literal["l2", "centred", "none"],
) -> tuple[jax.Array, jax.Array | None]:
    """A hidden layer from its pre-activations, and the factor of its normalisation or None."""
    hidden = act(pre)
    if norm == "none":
        return hidden, None
    if norm == "centred":
        hidden = _centre(hidden)
    scale = jax.lax.rsqrt(jnp.sum(jnp.square(hidden), axis=-1, keepdims=True) + _HIDDEN_EPS)
    return hidden * scale, scale


def _centre(x: jax.Array) -> jax.Array:
    return x - jnp.mean(x, axis=-1, keepdims=True)


def loss_gradient(spec: MemorySpec, output: jax.Array, target: jax.Array) -> jax.Array:
    """Gradient of the inner loss at a memory's output, the target held constant."""
    if spec.objective == "dot":
        return -spec.grad_factor * target
    return spec.grad_factor * (output - target)


def _through_hidden(
    spec: MemorySpec,
    at_key: Evaluation,
    frozen: Frozen,
    gradient: jax.Array,
    layer: Callable[[View], jax.Array],
) -> jax.Array:
    """Carry the gradient at the second layer's output back to the pre-activations."""
    d_hidden = frozen.apply(gradient, lambda w: jnp.swapaxes(layer(w), -1, -2))
    return together(through_hidden(spec, at_key, d_hidden))


def through_hidden(spec: MemorySpec, at_key: Evaluation, d_hidden: jax.Array) -> jax.Array:
    """Carry a gradient at the input of the second layers back through norm and activation.

    Args:
      spec: the group.
      at_key: where the gradient is taken.
      d_hidden: `[..., M, C, F]`.

    Returns:
      The gradient at the pre-activations, `[..., M, C, F]`.
    """
    if at_key.scale is not None:
        along = jnp.sum(at_key.hidden * d_hidden, axis=-1, keepdims=True)
        d_hidden = at_key.scale * (d_hidden - at_key.hidden * along)
        if spec.hidden_norm == "centred":
            d_hidden = _centre(d_hidden)
    (d_pre,) = jax.vjp(spec.act, at_key.pre)[1](d_hidden)
    return d_pre


def by_memory(spec: MemorySpec, pre_CZ: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Columns of the value and of the rate memories, each as `[..., M, C, F]`."""
    sizes = [len(spec.values) * spec.hidden, len(spec.rates) * spec.rate_hidden]
    if not spec.rates:
        return apart(pre_CZ, len(spec.values)), None
    value, rate = jax.lax.split(pre_CZ, sizes, axis=pre_CZ.ndim - 1)
    return (apart(value, len(spec.values)) if spec.values else None), apart(
        rate, len(spec.rates)
    )


def apart(x: jax.Array, count: int) -> jax.Array:
    """Columns of `count` memories, `[..., C, M F]`, as `[..., M, C, F]`."""
    return jnp.swapaxes(x.reshape(*x.shape[:-1], count, -1), -2, -3)


def together(x: jax.Array) -> jax.Array:
    """Inverse of `apart`."""
    x = jnp.swapaxes(x, -2, -3)
    return x.reshape(*x.shape[:-2], -1)
