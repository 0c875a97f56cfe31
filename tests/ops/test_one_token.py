"""The form that writes text is the plain recurrence."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from memory_cases import cut, make_inputs, make_memories, make_spec, relative_error

from hope_jax.ops.memory import l2_normalise
from hope_jax.ops.one_token import read_few_tokens
from hope_jax.ops.self_modifying import read_and_write, read_token_by_token

CASES = {
    "default": dict(),
    "momentum": dict(momentum=True),
    "dot, literal hidden layer": dict(memory={"objective": "dot", "hidden_norm": "none"}),
    "gradient descent": dict(rule="gd", momentum=True),
    "input only, chunk-start read": dict(scope="input_only", read="chunk_start"),
    "large memory chunk": dict(chunk=2, memory_chunk=4, momentum=True),
    "centred hidden layer": dict(memory={"hidden_norm": "centred"}),
    "decay to zero": dict(decay_to="zero", momentum=True),
    "linear": dict(memory={"kind": "linear", "objective": "dot"}),
    "shared targets, silu": dict(memory={"targets": "shared", "activation": "silu"}),
    "values of any length": dict(value_norm="none", memory={"grad_factor": 2.0}),
}
QUICK = ("default", "large memory chunk", "dot, literal hidden layer")
EVERY_CASE = [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES]


def run(form, spec, *arguments):
    return jax.jit(functools.partial(form, spec))(*arguments)


@pytest.mark.parametrize("case", EVERY_CASE)
def test_equals_the_plain_recurrence(case):
    """Across two boundaries, a reset, and tokens that are not written."""
    spec = make_spec(**CASES[case])
    initial = make_memories(spec)
    inputs = make_inputs(spec, 11, resets=[[6], [9]])
    inputs = inputs.replace(valid=inputs.valid.at[1, :, 2:5].set(False))
    state = run(read_token_by_token, spec, initial, cut(inputs, 0, 3), None).state
    got = run(read_few_tokens, spec, initial, cut(inputs, 3, 11), state)
    want = run(read_token_by_token, spec, initial, cut(inputs, 3, 11), state)
    assert relative_error(got, want) < 1e-5


def with_values(spec, values, rates):
    memory = dataclasses.replace(spec.groups[0].spec, values=values, rates=rates)
    group = dataclasses.replace(spec.groups[0], spec=memory)
    return dataclasses.replace(spec, groups=(group,))


@pytest.mark.parametrize(
    "values, rates",
    [
        (("memory", "memory_1", "k", "v", "q"), ("eta", "alpha")),
        (("memory", "v"), ("alpha",)),
        (("memory",), ()),
    ],
)
@pytest.mark.parametrize(
    "read", ["running", pytest.param("chunk_start", marks=pytest.mark.slow)]
)
def test_any_of_the_signals_may_be_given(values, rates, read):
    spec = with_values(make_spec(read=read), values, rates)
    initial = make_memories(spec)
    inputs = make_inputs(spec, 6)
    key = lambda seed: jax.random.normal(jax.random.key(seed), inputs.q.shape)
    if "q" in values:
        inputs = inputs.replace(q=None, q_source=l2_normalise(key(7)))
    if "k" not in values:
        inputs = inputs.replace(k=l2_normalise(key(8)), k_source=None)
    if "v" not in values:
        inputs = inputs.replace(v=l2_normalise(key(9)), v_source=None)
    got = run(read_few_tokens, spec, initial, inputs, None)
    want = run(read_token_by_token, spec, initial, inputs, None)
    assert relative_error(got, want) < 1e-5


def test_goes_on_from_chunks():
    spec = make_spec()
    initial = make_memories(spec)
    inputs = make_inputs(spec, 10)
    whole = run(read_and_write, spec, initial, inputs, None)
    state = run(read_and_write, spec, initial, cut(inputs, 0, 6), None).state
    rest = run(read_few_tokens, spec, initial, cut(inputs, 6, 10), state)
    assert relative_error(rest.y, whole.y[:, :, 6:]) < 1e-5
    assert relative_error(rest.state, whole.state) < 1e-5


@pytest.mark.slow
def test_has_the_gradient_of_the_plain_recurrence():
    spec = make_spec()
    initial = make_memories(spec)
    inputs = make_inputs(spec, 5)

    def loss(form, initial, inputs):
        return jnp.sum(jnp.square(form(spec, initial, inputs).y))

    got, want = (
        jax.jit(jax.grad(functools.partial(loss, form), (0, 1), allow_int=True))(
            initial, inputs
        )
        for form in (read_few_tokens, read_token_by_token)
    )
    drop = lambda grads: (grads[0], grads[1].replace(valid=None))
    assert relative_error(drop(got), drop(want)) < 1e-4
