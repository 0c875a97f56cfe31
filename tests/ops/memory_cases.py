"""Random memories and tokens for the tests of the self-modifying recurrence."""

import jax
import jax.numpy as jnp

from hope_jax.ops.memory import Memories, MemorySpec, l2_normalise
from hope_jax.ops.self_modifying import Group, Inputs, SelfModifyingSpec

SIZE = 8


def make_spec(chunk=4, memory_chunk=None, memory=None, parts=1, **recurrence):
    """A recurrence over all five memories; `memory` are fields of `MemorySpec`, `parts` those
    of the main memory."""

    def group(values, rates, chunk):
        fields = {"size": SIZE, "hidden": 6, "rate_hidden": 4, **(memory or {})}
        return Group(MemorySpec(values=values, rates=rates, **fields), chunk)

    rates = ("eta", "alpha")
    mains = ("memory", "memory_1", "memory_2")[:parts]
    if memory_chunk in (None, chunk):
        groups = (group((*mains, "k", "v"), rates, chunk),)
    else:
        groups = (group(("k", "v"), rates, chunk), group(mains, (), memory_chunk))
    return SelfModifyingSpec(groups, **recurrence)


def make_memories(spec, heads=2, seed=0):
    """Initial memories of every group, `[H, ...]`."""
    memories = []
    for i, group in enumerate(spec.groups):
        m = group.spec
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), i), 3)
        normal = jax.random.normal
        w_in = normal(keys[0], (heads, m.size, sum(m.widths.values())))
        if m.kind == "linear":
            memories.append(Memories(0.4 * w_in))
            continue
        w_value = 0.4 * normal(keys[1], (heads, len(m.values), m.hidden, m.size))
        w_rate = None
        if m.rates:
            w_rate = 0.4 * normal(keys[2], (heads, len(m.rates), m.rate_hidden, 1))
        memories.append(Memories(w_in, w_value, w_rate))
    return tuple(memories)


def make_inputs(spec, length, batch=2, heads=2, seed=1, resets=None, retention=3.0, rate=-1.0):
    """`length` random tokens; `resets` lists positions per row."""
    keys = jax.random.split(jax.random.key(seed), 7)
    vectors = [
        l2_normalise(jax.random.normal(k, (batch, heads, length, SIZE))) for k in keys[:4]
    ]
    gates = [jax.random.normal(k, (batch, heads, length)) for k in keys[4:]]
    reset = None
    if resets is not None:
        reset = jnp.zeros((batch, 1, length), bool)
        for row, positions in enumerate(resets):
            for t in positions:
                reset = reset.at[row, 0, t].set(True)
    return Inputs(
        k_source=vectors[0],
        v_source=vectors[1],
        rate_source=vectors[2],
        q=vectors[3],
        eta_logit=gates[0] + rate,
        alpha_logit=gates[1] + retention,
        mu=jax.nn.sigmoid(gates[2]) if spec.momentum else None,
        valid=jnp.ones((batch, 1, length), bool),
        reset=reset,
    )


def cut(inputs, start, stop):
    """The tokens from `start` to `stop`."""
    return jax.tree.map(lambda x: x[:, :, start:stop], inputs)


def relative_error(got, want):
    """Largest error over all leaves, each relative to its largest value (or 0.01)."""
    errors = jax.tree.map(
        lambda a, b: jnp.abs(a - b).max() / jnp.maximum(jnp.abs(b).max(), 1e-2), got, want
    )
    return float(max(jax.tree.leaves(errors)))
