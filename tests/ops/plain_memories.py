"""The paper's recurrence written as plainly as possible, to compare everything with.

One sequence, one head, a Python loop over tokens, dense matrices in the paper's own
orientation (`M @ k`), gradients of the inner loss by autodiff. Chunks are only a rule for
which state is frozen. Shares no code with the package.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Plain:
    kind: str = "mlp"
    rule: str = "dgd"
    scope: str = "per_layer"
    objective: str = "l2"
    read: str = "running"
    hidden_norm: str = "l2"
    momentum: bool = False
    grad_factor: float = 1.0
    targets: str = "generated"
    decay_to: str = "initial"
    max_rate: float = 1.0
    chunk: int = 1
    memory_chunk: int = 1


def unit(x, eps=1e-6):
    return x / jnp.sqrt(jnp.sum(x * x) + eps)


def hidden(opt, w, z):
    h = jax.nn.gelu(w["in"] @ z)
    if opt.hidden_norm == "centred":
        h = h - h.mean()
    return h if opt.hidden_norm == "none" else unit(h, 1e-2)


def apply(opt, w, z, residual):
    if opt.kind == "linear":
        return w["in"] @ z
    out = w["out"] @ hidden(opt, w, z)
    return z + out if residual else out


def inner_loss(opt, w, k, target, residual):
    out = apply(opt, w, k, residual)
    if opt.objective == "dot":
        return -opt.grad_factor * jnp.vdot(out, target)
    return 0.5 * opt.grad_factor * jnp.sum((out - target) ** 2)


@functools.partial(jax.jit, static_argnums=(0, 7))
def write(opt, w, s, frozen, initial, k, target, residual, eta, alpha, mu):
    """One write of one memory: Eq. 88 with per-layer delta gradient descent."""
    gradient = jax.grad(lambda w: inner_loss(opt, w, k, target, residual))(frozen)
    new_w, new_s = {}, {}
    for name in w:
        rate, g, x = eta, gradient[name], k
        delta = opt.rule == "dgd"
        if name == "out":
            x = hidden(opt, frozen, k)
            delta = delta and opt.scope == "per_layer"
            if opt.hidden_norm == "none":  # exact proximal step for an input of any length
                square = jnp.sum(x * x) + 1e-6
                rate = eta / (1 + eta * square)
        decay = alpha * jnp.eye(x.shape[0])
        if delta:
            decay = decay - rate * jnp.outer(x, x)
        if opt.momentum:
            new_s[name] = mu * s[name] - rate * g
            new_w[name] = w[name] @ decay + new_s[name]
        else:
            new_s[name] = s[name]
            new_w[name] = w[name] @ decay - rate * g
        if opt.decay_to == "initial":
            new_w[name] = new_w[name] + (1 - alpha) * initial[name]
    return new_w, new_s


def run(opt, memories, tokens, resets=()):
    """Read and write `tokens`, a list of dicts with k_source, v_source, rate_source, q,
    eta_logit, alpha_logit and mu.

    `memories` maps a name to its weights `{"in": ..., "out": ...}` (F x K and O x F).
    "memory", "memory_1", ... are parts of the main memory, read one after the other. Returns
    the reads and the final running and frozen memories.
    """
    rates = ("eta", "alpha")
    mains = [m for m in memories if m.startswith("memory")]
    zeros = jax.tree.map(jnp.zeros_like, memories)
    running, frozen, momentum, reads = memories, memories, zeros, []
    for t, token in enumerate(tokens):
        if t in resets:
            running, frozen, momentum = memories, memories, zeros
        frozen = {
            m: running[m]
            if t % (opt.memory_chunk if m in mains else opt.chunk) == 0
            else frozen[m]
            for m in memories
        }
        k = unit(apply(opt, frozen["k"], token["k_source"], True))
        v = unit(apply(opt, frozen["v"], token["v_source"], True))
        eta = opt.max_rate * jax.nn.sigmoid(
            token["eta_logit"] + apply(opt, frozen["eta"], token["rate_source"], False)[0]
        )
        if token["mu"] is not None:  # so that a gradient adds the rate in the end
            eta = eta * (1 - token["mu"])
        alpha = jax.nn.sigmoid(
            token["alpha_logit"] + apply(opt, frozen["alpha"], token["rate_source"], False)[0]
        )
        source = running if opt.read == "running" else frozen
        parts = [apply(opt, source[m], token["q"], True) for m in mains]
        reads.append(jnp.concatenate(parts))
        new, new_s = {}, {}
        for m in memories:
            residual = m not in rates
            target = apply(opt, frozen[m], v, residual)
            if opt.targets == "shared" and residual:
                target = v
            new[m], new_s[m] = write(
                opt, running[m], momentum[m], frozen[m], memories[m], k, target, residual,
                eta, alpha, token["mu"],
            )  # fmt: skip
        running, momentum = new, new_s
    return jnp.stack(reads), running, frozen
