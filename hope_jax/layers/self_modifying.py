"""Self-modifying Titans as a sequence mixer (paper sections 8.1-8.3).

The recurrence is `hope_jax.ops.self_modifying`; this module owns its slow weights: the
initial value of every memory, the projections that do not adapt, convolutions, gates.
"""

from __future__ import annotations

import functools
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig, SelfModifyingConfig
from hope_jax.layers.heads import FEW_TOKENS, count_writes
from hope_jax.layers.linear import (
    constant,
    conv_kernel,
    einsum,
    logit,
    output_std,
    weight,
)
from hope_jax.layers.norm import rms_norm
from hope_jax.layers.per_device import BY_HEAD, WEIGHTS, on_each_device
from hope_jax.ops.conv import causal_conv
from hope_jax.ops.memory import Memories, MemorySpec, l2_normalise
from hope_jax.ops.one_token import read_few_tokens
from hope_jax.ops.recompute import recomputed
from hope_jax.ops.self_modifying import (
    Group,
    Inputs,
    Reading,
    RecurrentState,
    SelfModifyingSpec,
    initial_state,
    normalise,
    read_and_write,
)


@flax.struct.dataclass
class SelfModifyingState:
    """Fast state of one layer.

    Attributes:
      recurrent: fast weights of all memories.
      tail_BKD: the last inputs of the convolution.
    """

    recurrent: RecurrentState
    tail_BKD: jax.Array


def recurrence_spec(config: SelfModifyingConfig, size: int) -> SelfModifyingSpec:
    """The recurrence that a configuration describes, for heads of `size`."""

    def group(values: tuple[str, ...], rates: tuple[str, ...], chunk: int) -> Group:
        return Group(
            MemorySpec(
                values=values,
                rates=rates,
                size=size,
                hidden=config.hidden or size,
                rate_hidden=config.rate_hidden,
                kind=config.memory,
                activation=config.activation,
                hidden_norm=config.hidden_norm,
                objective=config.objective,
                grad_factor=config.grad_factor,
                targets=config.targets,
            ),
            chunk,
        )

    values = tuple(name for name in ("k", "v", "q") if name in config.adaptive)
    rates = tuple(name for name in ("eta", "alpha") if name in config.adaptive)
    if config.retention == "none":
        rates = tuple(name for name in rates if name != "alpha")
    memory_chunk = config.memory_chunk or config.chunk
    parts = ("memory", *(f"memory_{i}" for i in range(1, config.value_expansion)))
    if not values and not rates:
        groups = (group(parts, (), memory_chunk),)
    elif memory_chunk == config.chunk:
        groups = (group((*parts, *values), rates, config.chunk),)
    else:
        groups = (group(values, rates, config.chunk), group(parts, (), memory_chunk))
    return SelfModifyingSpec(
        groups=groups,
        rule=config.rule,
        scope=config.scope,
        read=config.read,
        momentum=config.momentum == "titans",
        decay_to="initial" if config.decays_to_initial else "zero",
        max_rate=config.rate_limit,
        value_norm=config.value_norm,
        bptt_chunks=config.bptt_chunks,
        remat=config.remat,
    )


class SelfModifyingTitans(nn.Module):
    """Memories for k, v, eta, alpha and the content itself, all rewritten in context."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: SelfModifyingState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, SelfModifyingState]:
        """Read every token from the memories as they were before it, then write it.

        Args:
          x_BTD: normalised inputs.
          state: fast state to go on from; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: False leaves all memories as they are.
        """
        config: SelfModifyingConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        heads, size = config.heads, dim // config.heads
        width = config.value_expansion * size  # of what a head reads
        spec = recurrence_spec(config, size)
        initial = tuple(
            self._memories(group.spec, name)
            for group, name in zip(spec.groups, _group_names(spec), strict=True)
        )
        roles = ("k", "v", "q", "rate") if config.conv_placement == "per_role" else ("shared",)
        kernels = {}
        if config.conv:
            for role in roles:
                shape, axes = (config.conv, dim), (None, "embed")
                kernels[role] = conv_kernel(self, f"conv_{role}", shape, axes)
        w_out = weight(
            self,
            "w_out",
            (heads, width, dim),
            ("heads", "head_dim", "embed"),
            output_std(self.config, heads * width),
        )
        norm_scale = constant(self, "read_norm", (heads, width), ("heads", "head_dim"), 1.0)
        projections = self._projections(spec, dim, heads, size)

        if time == 0:
            if state is None:
                tail_BKD = jnp.zeros((batch, max(config.conv - 1, 0), dim), x_BTD.dtype)
                state = SelfModifyingState(initial_state(spec, initial, batch), tail_BKD)
            return x_BTD, state

        def prepare(x_BTD, kernels, projections):
            views, tail_BKD = self._views(x_BTD, state, reset_BT, kernels)
            inputs = self._inputs(spec, x_BTD, views, projections, reset_BT, writes)
            return inputs, tail_BKD

        inputs, tail_BKD = recomputed(prepare)(x_BTD, kernels, projections)
        recurrent = None if state is None else state.recurrent
        few = recurrent is not None and time <= FEW_TOKENS
        read = functools.partial(read_few_tokens if few else read_and_write, spec)
        reading = on_each_device(read, (WEIGHTS, BY_HEAD, BY_HEAD), BY_HEAD)(
            initial, inputs, recurrent
        )
        self._sow(spec, reading, initial, writes)

        def finish(y_BHTK, norm_scale, w_out, *gate_BTHK):
            y_BTHK = jnp.moveaxis(y_BHTK, 1, 2)
            y_BTHK = rms_norm(y_BTHK, norm_scale, self.config.norm_eps).astype(x_BTD.dtype)
            for gate in gate_BTHK:
                y_BTHK = y_BTHK * nn.silu(gate)
            return einsum("bthk,hkd->btd", y_BTHK, w_out)

        gate_BTHK = ()
        if config.gate:
            gate_BTHK = (einsum("btd,dhk->bthk", x_BTD, projections["w_gate"]),)
        y_BTD = recomputed(finish)(reading.y, norm_scale, w_out, *gate_BTHK)
        return y_BTD, SelfModifyingState(reading.state, tail_BKD)

    def _memories(self, spec: MemorySpec, name: str) -> Memories:
        """Initial memories `[H, ...]` of one group: slow weights, learnt across contexts."""
        heads, size = self.config.mixer.heads, spec.size
        columns = sum(spec.widths.values())
        # Memories read vectors of unit length. Storing the first layer divided by
        # sqrt(K) gives it the scale of an ordinary layer, so that one learning rate
        # suits both, and pre-activations of order one.
        w_in = math.sqrt(size) * weight(
            self,
            f"{name}_in",
            (heads, size, columns),
            ("heads", "memory", "hidden"),
            size**-0.5,
            jnp.float32,
        )
        if spec.kind == "linear":
            return Memories(w_in)
        w_value = weight(
            self,
            f"{name}_value",
            (heads, len(spec.values), spec.hidden, size),
            ("heads", None, "memory", "head_dim"),
            size**-0.5,
            jnp.float32,
        )
        w_rate = None
        if spec.rates:
            w_rate = weight(
                self,
                f"{name}_rate",
                (heads, len(spec.rates), spec.rate_hidden, 1),
                ("heads", None, "hidden", None),
                0.5,
                jnp.float32,
            )
        return Memories(w_in, w_value, w_rate)

    def _projections(
        self, spec: SelfModifyingSpec, dim: int, heads: int, size: int
    ) -> dict[str, jax.Array]:
        """Weights of everything that does not adapt, and the biases of the rates."""
        config: SelfModifyingConfig = self.config.mixer
        adaptive = {m for group in spec.groups for m in group.spec.widths}
        params = {}
        shape, axes = (dim, heads, size), ("embed", "heads", "head_dim")
        for name in ("k", "v", "q"):
            if name not in adaptive:
                params[f"w_{name}"] = weight(self, f"w_{name}", shape, axes, dim**-0.5)
        if config.gate:
            wide = (dim, heads, config.value_expansion * size)
            params["w_gate"] = weight(self, "w_gate", wide, axes, dim**-0.5)
        starts = {"eta": config.start_rate / config.rate_limit}
        if config.retention == "learned":
            starts["alpha"] = config.initial_retention
        if config.momentum == "titans":
            starts["mu"] = config.initial_momentum
        for name, start in starts.items():
            bias = logit(start)
            params[f"b_{name}"] = constant(self, f"b_{name}", (heads,), ("heads",), bias)
            if name not in adaptive:
                params[f"w_{name}"] = weight(
                    self, f"w_{name}", (dim, heads), ("embed", "heads"), dim**-0.5
                )
        return params

    def _views(self, x_BTD, state, reset_BT, kernels):
        """What each role reads: its own short convolution of the input, or a shared one."""
        tail_BKD = None if state is None else state.tail_BKD
        if not kernels:
            if tail_BKD is None:
                tail_BKD = jnp.zeros((x_BTD.shape[0], 0, x_BTD.shape[2]), x_BTD.dtype)
            return dict.fromkeys(("k", "v", "q", "rate"), x_BTD), tail_BKD
        views = {}
        for role, kernel in kernels.items():
            views[role], new_tail = causal_conv(x_BTD, kernel, tail_BKD, reset_BT)
        if "shared" in views:
            views = dict.fromkeys(("k", "v", "q", "rate"), views["shared"])
        return views, new_tail

    def _inputs(self, spec, x_BTD, views, projections, reset_BT, writes) -> Inputs:
        config: SelfModifyingConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        heads, size = config.heads, dim // config.heads
        adaptive = {m for group in spec.groups for m in group.spec.widths}

        def split_heads(name: str) -> jax.Array:
            # Whole before heads are cut out of it: where the input is split over a mesh,
            # the partitioner otherwise gets rows wrong, and says nothing (jaxlib 0.10.2).
            view_BTD = nn.with_logical_constraint(views[name], ("batch", "time", None))
            x_BTHK = view_BTD.reshape(batch, time, heads, size).astype(jnp.float32)
            return normalise(config.input_norm, jnp.moveaxis(x_BTHK, 2, 1))

        def project(name: str) -> jax.Array:
            y_BTHK = einsum(
                "btd,dhk->bthk", views[name], projections[f"w_{name}"], result=jnp.float32
            )
            y_BHTK = jnp.moveaxis(y_BTHK, 2, 1)  # heads first in the product copy the weights
            if name == "v":
                return normalise(config.value_norm, y_BHTK)
            return l2_normalise(y_BHTK)

        def logit(name: str) -> jax.Array | None:
            if f"b_{name}" not in projections:
                return None
            bias_H = projections[f"b_{name}"]
            if name in adaptive:
                return jnp.broadcast_to(bias_H[:, None], (batch, heads, time))
            rate_BHT = einsum(
                "btd,dh->bht", views["rate"], projections[f"w_{name}"], result=jnp.float32
            )
            return rate_BHT + bias_H[None, :, None]

        given = {n: project(n) for n in ("k", "v", "q") if n not in adaptive}
        source = {
            f"{role}_source": split_heads(role)
            for role, names in (("k", "k"), ("v", "v"), ("q", "q"), ("rate", "eta alpha"))
            if adaptive & set(names.split())
        }
        mu = logit("mu")
        return Inputs(
            eta_logit=logit("eta"),
            alpha_logit=logit("alpha"),
            mu=None if mu is None else nn.sigmoid(mu),
            valid=jnp.full((batch, 1, time), writes),
            reset=None if reset_BT is None else reset_BT[:, None],
            **given,
            **source,
        )

    def _sow(self, spec, reading: Reading, initial, writes: bool) -> None:
        """Statistics for logs, in the collection "stats"; free where nobody asks."""
        if not self.is_mutable_collection("stats"):
            return
        change, norm, size = 0.0, 0.0, 0.0
        for group, first in zip(reading.state.groups, initial, strict=True):
            for now, before in zip(
                jax.tree.leaves(group.running), jax.tree.leaves(first), strict=True
            ):
                change += jnp.sum(jnp.square(now - before[None])) / now.shape[0]
                norm += jnp.sum(jnp.square(before))
                size += jnp.sum(jnp.square(now)) / now.shape[0]
        self.sow("stats", "eta", jnp.mean(reading.eta))
        self.sow("stats", "alpha", jnp.mean(reading.alpha))
        self.sow("stats", "memory_change", jnp.sqrt(change / norm))
        # Zero is final: where both layers of a memory are, neither has a gradient.
        self.sow("stats", "memory_norm", jnp.sqrt(size / norm))
        count_writes(self, reading.eta.size, writes)


def _group_names(spec: SelfModifyingSpec) -> tuple[str, ...]:
    return ("memory",) if len(spec.groups) == 1 else ("generator", "memory")
