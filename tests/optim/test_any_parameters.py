"""Rules for matrices on odd trees: without a matrix, without numbers, in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.optim import (
    deep_momentum,
    delta_momentum,
    m3,
    orthogonalize,
    scale_by_deep_momentum,
    scale_by_delta_momentum,
    scale_by_learned_preconditioner,
    scale_by_m3,
    scale_by_m3_literal,
)

RULES = {
    "m3": scale_by_m3,
    "m3_literal": scale_by_m3_literal,
    "deep": lambda: scale_by_deep_momentum(hidden=3),
    "deep_ones": lambda: scale_by_deep_momentum(hidden=3, objective="ones"),
    "delta": scale_by_delta_momentum,
    "preconditioner": scale_by_learned_preconditioner,
    "newton_schulz": orthogonalize,
}


def run(tx, grads, steps=2):
    state, update = tx.init(grads), jax.jit(tx.update)
    for _ in range(steps):
        made, state = update(grads, state, grads)
    return made, state


@pytest.mark.parametrize("make", [m3, deep_momentum, delta_momentum])
def test_without_a_matrix_all_is_adamw(make):
    grads = {"b": jnp.arange(1.0, 4.0)}
    made, _ = run(make(0.1), grads)
    wanted, _ = run(optax.adamw(0.1, weight_decay=0.0), grads)
    np.testing.assert_allclose(made["b"], wanted["b"], rtol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_an_empty_tree_stays_empty(rule):
    assert run(RULES[rule](), {})[0] == {}


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_a_matrix_without_numbers_leaves_the_others_alone(rule, shape):
    grads = {"w": jnp.eye(3)}
    made, state = run(RULES[rule](), grads | {"none": jnp.zeros(shape)})
    assert made["none"].shape == shape
    np.testing.assert_allclose(made["w"], run(RULES[rule](), grads)[0]["w"], rtol=1e-6)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


VALUES = {
    "delta_rms": lambda: scale_by_delta_momentum(value=optax.scale_by_rms(0.999)),
    "deep_rms": lambda: scale_by_deep_momentum(hidden=3, value=optax.scale_by_rms(0.999)),
}


@pytest.mark.parametrize("rule", RULES | VALUES)
def test_bfloat16_parameters_have_a_state_in_float32(rule):
    grads = {"w": jnp.eye(2, dtype=jnp.bfloat16)}
    made, state = run((RULES | VALUES)[rule](), grads)
    assert made["w"].dtype == jnp.bfloat16
    kinds = {x.dtype for x in jax.tree.leaves(state) if x.dtype.kind != "i"}
    assert kinds <= {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_second_moment_of_m3_comes_to_the_square_in_any_type(dtype):
    """In bfloat16 a thousandth of the square would be lost when the sum is a quarter of it."""
    grads = {"w": jnp.eye(2, dtype=dtype)}
    _, state = run(scale_by_m3(b2=0.999), grads, 1000)
    np.testing.assert_allclose(state.memories["square"]["w"][0, 0], 1 - 0.999**1000, rtol=1e-3)
