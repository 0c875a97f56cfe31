"""The write of the memories is the optimizer `hope_jax.optim.dgd`, one token at a time.

Two places of one mechanism: a memory is a level of period one token whose optax
transformation is delta gradient descent with the token's own rate, retention and momentum.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain_memories
import pytest
from memory_cases import make_inputs, make_memories, make_spec, relative_error

from hope_jax.nested import Level, Levels
from hope_jax.ops.dgd import Gates, dgd_step
from hope_jax.ops.self_modifying import read_and_write
from hope_jax.optim import dgd

K, Z, T = 6, 5, 12


def with_numbers(state, eta, alpha, mu):
    """Set what `optax.inject_hyperparams` holds, everywhere in a state."""
    numbers = dict(learning_rate=eta, retention=alpha)
    if mu is not None:
        numbers["momentum"] = mu
    return optax.tree.set(state, hyperparams=numbers)


def injected(momentum, step="gradient"):
    return optax.inject_hyperparams(dgd)(
        0.0, step=step, retention=1.0, momentum=0.0 if momentum else None
    )


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("rule", ["dgd", "gd"])
def test_one_write(rule, momentum):
    """`dgd_step` over a stream, among its gates the extremes."""
    rng = np.random.default_rng(0)
    f32 = lambda a: jnp.asarray(a, jnp.float32)
    w, x, g = (f32(rng.normal(size=s)) for s in ((2, K, Z), (T, 2, K), (T, 2, Z)))
    eta, alpha, mu = f32(rng.uniform(size=(3, T)))
    alpha, mu = alpha.at[3].set(0).at[4].set(1), mu.at[5].set(0).at[6].set(1)
    mu = mu if momentum else None
    tx = injected(momentum)

    def by_optax(carry, token):
        w, state = carry
        x, g, eta, alpha, mu = token
        grads = x[..., :, None] * g[..., None, :]
        inputs = {} if rule == "gd" else {"w": x}
        state = with_numbers(state, eta, alpha, mu)
        updates, state = tx.update({"w": grads}, state, {"w": w}, inputs=inputs)
        w = w + updates["w"]
        return (w, state), w

    def by_memory(carry, token):
        x, g, *gates = token
        gates = Gates(*(None if v is None else jnp.broadcast_to(v, (2,)) for v in gates))
        carry = dgd_step(*carry, x, g, gates, rule)
        return carry, carry[0]

    tokens = (x, g, eta, alpha, mu)
    (_, state), got = jax.lax.scan(by_optax, (w, tx.init({"w": w})), tokens)
    start = (w, jnp.zeros_like(w) if momentum else None)
    (_, s), want = jax.lax.scan(by_memory, start, tokens)
    for t in range(T):
        scale = float(jnp.abs(want[t]).max())
        np.testing.assert_allclose(got[t], want[t], atol=1e-5 * scale)
    if momentum:
        assert relative_error(state.inner_state.momentum["w"], s) < 1e-5


CASES = {
    "chunk of one": dict(chunk=1),
    "chunks": dict(chunk=4),
    "momentum": dict(chunk=4, momentum=True),
    "gradient descent": dict(chunk=4, momentum=True, rule="gd"),
    "input only": dict(chunk=4, scope="input_only"),
    "literal hidden layer": dict(chunk=4, hidden_norm="none", momentum=True),
    "dot": dict(chunk=4, objective="dot"),
}
MEMORY_FIELDS = ("objective", "hidden_norm")
# Each takes ten seconds to compile; CI runs all.
QUICK = ("chunk of one",)
EVERY_CASE = [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES]


@pytest.mark.parametrize("case", EVERY_CASE)
def test_memories_are_a_level(case):
    """All memories of a self-modifying mixer: reads, final weights, and outer gradients."""
    fields = CASES[case]
    memory = {name: fields[name] for name in MEMORY_FIELDS if name in fields}
    rest = {name: v for name, v in fields.items() if name not in MEMORY_FIELDS}
    spec = make_spec(**rest, memory=memory, decay_to="zero")
    options = plain_memories.Plain(**fields, memory_chunk=fields["chunk"], decay_to="zero")
    initial = make_memories(spec, heads=1)
    tokens = make_inputs(spec, 9, batch=1, heads=1)

    def fast(initial, k_source):
        reading = read_and_write(spec, initial, tokens.replace(k_source=k_source), None)
        running = reading.state.groups[0].running
        return reading.y[0, 0], apart(spec, jax.tree.map(lambda w: w[0, 0], running))

    def stepped(initial, k_source):
        weights = apart(spec, jax.tree.map(lambda w: w[0], initial[0]))
        return step_by_token(options, weights, tokens.replace(k_source=k_source))

    def compare(form):
        def loss(*args):
            out = form(*args)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(out)), out

        (_, out), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
            initial, tokens.k_source
        )
        return out, grads

    (want, want_grads), (got, got_grads) = compare(fast), compare(stepped)
    assert relative_error(got, want) < 2e-5
    assert relative_error(got_grads, want_grads) < 5e-5
    assert all(jnp.abs(g).max() > 1e-3 for g in jax.tree.leaves(want_grads))


def apart(spec, weights):
    """Stacked memories as `{memory: {"in": [K, F], "out": [F, O]}}`."""
    memory, by_name = spec.groups[0].spec, {}
    for names, second in (
        (memory.values, weights.w_value),
        (memory.rates, weights.w_rate),
    ):
        for i, name in enumerate(names):
            by_name[name] = {"in": weights.w_in[:, memory.columns(name)], "out": second[i]}
    return by_name


def step_by_token(opt, weights, tokens):
    """The recurrence (Eqs. 83-90) with the levels engine and optax doing the writes."""
    # With a literal hidden layer, whose length is not 1, memories take the exact step.
    out_step = "proximal" if opt.hidden_norm == "none" else "gradient"
    rules = {"in": injected(opt.momentum), "out": injected(opt.momentum, out_step)}
    layers = {name: {"in": "in", "out": "out"} for name in weights}
    levels = Levels((Level("memories", 1, optax.partition(rules, layers)),))
    paper = lambda tree: jax.tree.map(jnp.transpose, tree)  # which writes M k

    def apply(w, z, residual):
        return plain_memories.apply(opt, paper(w), z, residual)

    def step(carry, token):
        w, frozen, state, t = carry
        renew = t % opt.chunk == 0
        frozen = jax.tree.map(lambda new, old: jnp.where(renew, new, old), w, frozen)
        k = plain_memories.unit(apply(frozen["k"], token.k_source, True))
        v = plain_memories.unit(apply(frozen["v"], token.v_source, True))
        rate = lambda m: apply(frozen[m], token.rate_source, False)[0]
        eta = jax.nn.sigmoid(token.eta_logit + rate("eta"))
        eta = eta if token.mu is None else eta * (1 - token.mu)
        alpha = jax.nn.sigmoid(token.alpha_logit + rate("alpha"))
        y = apply(w["memory"], token.q, True)

        grads, inputs = {}, {}
        for m, at in frozen.items():
            residual = m not in ("eta", "alpha")
            target = apply(at, v, residual)
            grads[m] = jax.grad(
                lambda at, target=target, residual=residual: plain_memories.inner_loss(
                    opt, paper(at), k, target, residual
                )
            )(at)
            hidden = plain_memories.hidden(opt, paper(at), k)
            inputs[m] = {"in": k, "out": None if opt.scope == "input_only" else hidden}
        state = with_numbers(state, eta, alpha, token.mu)
        inputs = {} if opt.rule == "gd" else inputs
        w, state, _ = levels.step(w, state, grads, inputs=inputs)
        return (w, frozen, state, t + 1), y

    stream = jax.tree.map(lambda x: x[0, 0], tokens.replace(valid=None))
    start = (weights, weights, levels.init(weights), 0)
    (w, *_), y = jax.lax.scan(step, start, stream)
    return y, w
