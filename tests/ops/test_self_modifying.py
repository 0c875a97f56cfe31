"""The self-modifying recurrence: fast forms against slow ones, and what the paper implies."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import plain_memories
import pytest
from memory_cases import cut, make_inputs, make_memories, make_spec, relative_error

from hope_jax.ops.memory import Memories, l2_normalise
from hope_jax.ops.self_modifying import (
    initial_state,
    read_and_write,
    read_token_by_token,
)

RESETS = [[6, 18], [9, 20]]
CASES = {
    "default": dict(),
    "momentum": dict(momentum=True),
    "dot, literal hidden layer": dict(memory={"objective": "dot", "hidden_norm": "none"}),
    "gradient descent": dict(rule="gd", momentum=True),
    "input only, chunk-start read": dict(scope="input_only", read="chunk_start"),
    "large memory chunk": dict(chunk=4, memory_chunk=16, momentum=True),
    "linear, odd chunk": dict(chunk=5, memory={"kind": "linear", "objective": "dot"}),
    "shared targets": dict(memory={"targets": "shared"}),
    "centred hidden layer": dict(memory={"hidden_norm": "centred"}, momentum=True),
    "decay to zero": dict(decay_to="zero"),
    "decay to zero, momentum": dict(decay_to="zero", momentum=True, rule="gd"),
    "square-root remat": dict(chunk=2, remat="sqrt"),
    "main memory in parts": dict(parts=2, memory_chunk=8, momentum=True),
}


@functools.cache
def compiled(form, spec):
    return jax.jit(functools.partial(form, spec))


# The rest of the cases costs minutes of compilation; CI runs them.
QUICK = ("default", "large memory chunk", "dot, literal hidden layer")
EVERY_CASE = [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES]


@pytest.mark.parametrize("case", EVERY_CASE)
def test_chunks_equal_tokens(case):
    spec = make_spec(**CASES[case])
    initial = make_memories(spec)
    inputs = make_inputs(spec, 21, resets=RESETS)
    got = compiled(read_and_write, spec)(initial, inputs, None)
    want = compiled(read_token_by_token, spec)(initial, inputs, None)
    assert relative_error(got, want) < 1e-5


@pytest.mark.parametrize("case", [EVERY_CASE[0], EVERY_CASE[5]])
def test_pieces_equal_the_whole(case):
    spec = make_spec(**CASES[case])
    initial = make_memories(spec)
    inputs = make_inputs(spec, 21, resets=RESETS)
    whole = compiled(read_and_write, spec)(initial, inputs, None)
    state, reads = None, []
    for start, stop in ((0, 7), (7, 14), (14, 21)):
        piece = compiled(read_and_write, spec)(initial, cut(inputs, start, stop), state)
        state = piece.state
        reads.append(piece.y)
    assert relative_error(jnp.concatenate(reads, axis=2), whole.y) < 2e-5
    assert relative_error(state, whole.state) < 2e-5


PLAIN = {
    "default": {},
    "momentum": {"momentum": True},
    "dot": {"objective": "dot"},
    "literal hidden layer": {"hidden_norm": "none", "grad_factor": 2.0},
    "centred hidden layer": {"hidden_norm": "centred"},
    "decay to zero": {"decay_to": "zero", "chunk": 4, "memory_chunk": 4},
    "input only": {"scope": "input_only"},
    "chunk start, two sizes": {"read": "chunk_start", "chunk": 2, "memory_chunk": 4},
    "chunked": {"chunk": 4, "memory_chunk": 4},
    "main memory in parts": {"parts": 3, "chunk": 2, "memory_chunk": 2},
    "matrix memory in parts": {"parts": 2, "kind": "linear", "objective": "dot"},
}
MEMORY_FIELDS = ("kind", "objective", "hidden_norm", "grad_factor", "targets")


@pytest.mark.parametrize("case", PLAIN)
def test_equals_the_paper_written_plainly(case):
    """Chunk 1 is Eq. 88 token by token; larger chunks freeze as Eq. 90 says."""
    fields = PLAIN[case]
    options = plain_memories.Plain(**{k: v for k, v in fields.items() if k != "parts"})
    memory = {name: fields[name] for name in MEMORY_FIELDS if name in fields}
    rest = {k: v for k, v in fields.items() if k not in MEMORY_FIELDS}
    spec = make_spec(**{"chunk": 1, **rest}, memory=memory)
    initial = make_memories(spec, heads=1)
    inputs = make_inputs(spec, 9, batch=1, heads=1, resets=[[5]])
    got = compiled(read_and_write, spec)(initial, inputs, None)

    by_name = {}
    for group, weights in zip(spec.groups, initial, strict=True):
        for name in group.spec.widths:
            w = {"in": weights.w_in[0][:, group.spec.columns(name)].T}
            if group.spec.kind == "mlp":
                value = name in group.spec.values
                stack = group.spec.values if value else group.spec.rates
                second = weights.w_value if value else weights.w_rate
                w["out"] = second[0, stack.index(name)].T
            by_name[name] = w
    tokens = []
    for t in range(9):
        fields_at = {
            name: getattr(inputs, name)[0, 0, t]
            for name in ("k_source", "v_source", "rate_source", "q", "eta_logit", "alpha_logit")
        }
        mu = jnp.zeros(()) if inputs.mu is None else inputs.mu[0, 0, t]
        tokens.append({**fields_at, "mu": mu})
    reads, running, frozen = plain_memories.run(options, by_name, tokens, resets=(5,))
    assert relative_error(got.y[0, 0], reads) < 2e-5
    index = len(spec.groups) - 1
    columns = spec.groups[index].spec.columns("memory")
    state = got.state.groups[index]
    assert (
        relative_error(state.running.w_in[0, 0][:, columns].T, running["memory"]["in"]) < 2e-5
    )
    if options.kind == "mlp":
        second = state.running.w_value[0, 0, 0].T
        assert relative_error(second, running["memory"]["out"]) < 2e-5


@hypothesis.given(
    seed=st.integers(0, 2**16),
    length=st.sampled_from([5, 17]),
    retention=st.sampled_from([-40.0, 0.0, 40.0]),
    rate=st.sampled_from([-40.0, 0.0, 40.0]),
    case=st.sampled_from(["default", "linear, odd chunk"]),
)
@hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
def test_extreme_gates(seed, length, retention, rate, case):
    spec = make_spec(**CASES[case])
    initial = make_memories(spec)
    inputs = make_inputs(spec, length, seed=seed, retention=retention, rate=rate)
    got = compiled(read_and_write, spec)(initial, inputs, None)
    want = compiled(read_token_by_token, spec)(initial, inputs, None)
    assert relative_error(got, want) < 5e-5


@pytest.mark.slow
def test_gradients_of_both_forms_agree():
    spec = make_spec(chunk=2, memory_chunk=4, momentum=True)
    initial = make_memories(spec)
    inputs = make_inputs(spec, 7, resets=[[3], [5]])

    def gradient(form):
        def loss(initial, q, k_source):
            reading = form(spec, initial, inputs.replace(q=q, k_source=k_source), None)
            return jnp.sum(jnp.sin(reading.y)) + jnp.sum(reading.eta * reading.alpha)

        return jax.jit(jax.grad(loss, (0, 1, 2)))(initial, inputs.q, inputs.k_source)

    got, want = gradient(read_and_write), gradient(read_token_by_token)
    assert relative_error(got, want) < 5e-5


def test_truncation_stops_gradients_after_so_many_chunks():
    inputs = make_inputs(make_spec(), 16)

    def gradient(bptt_chunks, stop):
        spec = make_spec(bptt_chunks=bptt_chunks)

        def loss(k_source):
            reading = read_and_write(
                spec, make_memories(spec), inputs.replace(k_source=k_source)
            )
            return jnp.sum(reading.y[:, :, stop:] ** 2)

        per_token = jax.jit(jax.grad(loss))(inputs.k_source)
        return jnp.abs(per_token).max(axis=(0, 1, 3))

    assert (gradient(None, 12)[:12] > 0).all()
    truncated = gradient(2, 12)
    assert (truncated[:8] == 0).all() and (truncated[8:12] > 0).all()


def test_no_writes_leave_a_plain_residual_mlp():
    """With eta = 0 and alpha = 1 the layer is a residual MLP of q."""
    spec = make_spec()
    initial = make_memories(spec)
    inputs = make_inputs(spec, 10, rate=-200.0, retention=200.0)
    got = compiled(read_and_write, spec)(initial, inputs, None)
    memory = spec.groups[0].spec
    w_in = initial[0].w_in[..., memory.columns("memory")]
    hidden = memory.hidden_layer(jnp.einsum("bhtk,hkf->bhtf", inputs.q, w_in))
    want = inputs.q + jnp.einsum("bhtf,hfk->bhtk", hidden, initial[0].w_value[:, 0])
    np.testing.assert_allclose(got.y, want, atol=1e-5)
    off = compiled(read_and_write, spec)(
        initial, make_inputs(spec, 10).replace(valid=jnp.zeros((2, 1, 10), bool)), None
    )
    np.testing.assert_allclose(off.y, want, atol=1e-5)


def test_linear_dot_memory_is_gated_delta_net():
    """S = alpha S (I - beta k k^T) + beta v k^T with beta = eta/alpha, v = alpha v_hat."""
    spec = make_spec(chunk=16, memory={"kind": "linear", "objective": "dot"})
    spec = type(spec)(decay_to="zero", groups=(type(spec.groups[0])(
        type(spec.groups[0].spec)(
            values=("memory",), rates=(), size=8, hidden=8, rate_hidden=1,
            kind="linear", objective="dot",
        ), 16),))  # fmt: skip
    initial = make_memories(spec, heads=1)
    base = make_inputs(spec, 16, batch=1, heads=1)
    eta, alpha = jax.nn.sigmoid(base.eta_logit), jax.nn.sigmoid(base.alpha_logit)
    inputs = base.replace(
        k=base.k_source, v=base.v_source, k_source=None, v_source=None, rate_source=None
    )
    got = compiled(read_and_write, spec)(initial, inputs, None)
    m0 = np.asarray(initial[0].w_in[0].T, np.float64)
    state, reads = m0, []
    for t in range(16):
        k, q = np.asarray(inputs.k[0, 0, t]), np.asarray(inputs.q[0, 0, t])
        beta, gate = float(eta[0, 0, t] / alpha[0, 0, t]), float(alpha[0, 0, t])
        reads.append(state @ q)
        value = gate * (m0 @ np.asarray(inputs.v[0, 0, t]))
        state = gate * state @ (np.eye(8) - beta * np.outer(k, k)) + beta * np.outer(value, k)
    np.testing.assert_allclose(got.y[0, 0], np.stack(reads), atol=1e-5)


@pytest.mark.parametrize("objective,want", [("l2", 0.5), ("dot", 1.0)])
def test_fixed_point_of_a_repeated_write(objective, want):
    """A repeated (k, v_hat) settles at v_hat / 2 under L2, at v_hat under dot."""
    fields = {"kind": "linear", "objective": objective, "targets": "shared"}
    spec = make_spec(chunk=1, memory=fields)
    initial = (Memories(jnp.zeros_like(make_memories(spec, heads=1)[0].w_in)),)
    k = l2_normalise(jnp.arange(1.0, 9.0))
    v = l2_normalise(jnp.cos(jnp.arange(8.0)))
    repeat = lambda x: jnp.broadcast_to(x, (1, 1, 200, 8))
    inputs = make_inputs(spec, 200, batch=1, heads=1).replace(
        k=repeat(k), v=repeat(v), q=repeat(k),
        eta=jnp.full((1, 1, 200), 0.4), alpha=jnp.ones((1, 1, 200)),
    )  # fmt: skip
    got = compiled(read_and_write, spec)(initial, inputs, None)
    np.testing.assert_allclose(got.y[0, 0, -1], want * v, atol=1e-4)


@pytest.mark.parametrize("case", ["default", "large memory chunk"])
def test_causal(case):
    """Perturbing token t moves no read before t + 1 and, for t inside a chunk, later ones."""
    spec = make_spec(**CASES[case])
    initial = make_memories(spec)
    inputs = make_inputs(spec, 16)
    run = compiled(read_and_write, spec)
    for t in (3, 4, 9):
        moved = inputs.replace(
            k_source=inputs.k_source.at[:, :, t].multiply(-1.0),
            v_source=inputs.v_source.at[:, :, t].multiply(-1.0),
            rate_source=inputs.rate_source.at[:, :, t].multiply(-1.0),
        )
        change = jnp.abs(run(initial, moved, None).y - run(initial, inputs, None).y)
        change = change.max(axis=(0, 1, 3))
        assert (change[: t + 1] == 0).all()
        assert (change[t + 1 :] > 0).all()


def test_documents_do_not_leak():
    spec = make_spec()
    initial = make_memories(spec)
    run = compiled(read_and_write, spec)
    inputs = make_inputs(spec, 21, resets=[[8, 18], [8]])
    other = jax.tree.map(lambda x: x, inputs)
    for name in ("k_source", "v_source", "rate_source", "q"):
        x = getattr(inputs, name)
        other = other.replace(**{name: x.at[:, :, :8].set(x[:, :, :8][:, :, ::-1])})
    got, want = run(initial, other, None), run(initial, inputs, None)
    np.testing.assert_array_equal(got.y[:, :, 8:], want.y[:, :, 8:])
    assert relative_error(got.state, want.state) == 0
    # A document that starts on a chunk boundary reads as if it stood alone.
    alone = cut(inputs, 8, 21)
    alone = run(initial, alone, None)
    assert relative_error(alone.y[1], want.y[1, :, 8:]) < 1e-5


def test_rows_are_isolated():
    spec = make_spec()
    initial = make_memories(spec)
    inputs = make_inputs(spec, 12)
    moved = inputs.replace(v_source=inputs.v_source.at[0].multiply(-1.0))
    run = compiled(read_and_write, spec)
    np.testing.assert_array_equal(
        run(initial, moved, None).y[1], run(initial, inputs, None).y[1]
    )


def test_state_does_not_grow():
    spec = make_spec()
    initial = make_memories(spec)
    shapes = lambda state: [x.shape for x in jax.tree.leaves(state)]
    fresh = initial_state(spec, initial, 2)
    for length in (1, 9, 21):
        reading = compiled(read_and_write, spec)(initial, make_inputs(spec, length), None)
        assert shapes(reading.state) == shapes(fresh)


def test_identical_keys_stay_finite():
    """A text of one repeated token: as ill conditioned as it gets."""
    spec = make_spec(chunk=64)
    initial = make_memories(spec)
    one = make_inputs(spec, 1, retention=100.0, rate=100.0)
    inputs = jax.tree.map(lambda x: jnp.repeat(x, 512, axis=2), one)

    def loss(initial):
        return jnp.mean(read_and_write(spec, initial, inputs).y ** 2)

    value, gradient = jax.jit(jax.value_and_grad(loss))(initial)
    assert value < 100
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))
