"""Matrices by a rule, the rest by AdamW."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from hope_jax.optim import deep_momentum, delta_momentum, matrices_and_rest, orthogonalize


def params():
    keys = iter(jax.random.split(jax.random.key(0), 4))
    shapes = {"embed": (5, 3), "stack": (2, 3, 4), "w": (4, 3), "bias": (3,)}
    return {name: jax.random.normal(next(keys), shape) for name, shape in shapes.items()}


DIMS = {
    "embed": None,
    "stack": MuonDimensionNumbers(1, 2),
    "w": MuonDimensionNumbers(),
    "bias": None,
}
FORMS = {
    "tree": DIMS,
    "function": lambda tree: {name: DIMS[name] for name in tree},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_kind_gets_its_own_rule(form):
    tx = matrices_and_rest(
        functools.partial(orthogonalize, steps=1), 0.1, dims=FORMS[form], weight_decay=0.3
    )
    p = params()
    grads = jax.tree.map(jnp.cos, p)
    made, _ = jax.jit(tx.update)(grads, tx.init(p), p)
    adamw = optax.adamw(0.1, weight_decay=0.3)
    wanted, _ = adamw.update(grads, adamw.init(p), p)
    for name in ("embed", "bias"):
        np.testing.assert_allclose(made[name], wanted[name], rtol=1e-5)
    for name in ("stack", "w"):
        rule = -made[name] / 0.1 - 0.3 * p[name]
        rms = np.sqrt(np.mean(np.square(rule), axis=(-2, -1)))
        np.testing.assert_allclose(rms, 0.2, rtol=1e-4)
        assert np.all(np.sum(rule * grads[name], axis=(-2, -1)) > 0)


@pytest.mark.parametrize("make", [delta_momentum, deep_momentum])
@pytest.mark.parametrize("form", FORMS)
def test_inside_another_partition_it_sees_its_own_part(form, make):
    p = params()
    tx = make(0.1, dims=FORMS[form])
    kinds = {"embed": "other", "stack": "other", "w": "mine", "bias": "mine"}
    nested = optax.partition({"mine": tx, "other": optax.set_to_zero()}, kinds)
    made, _ = jax.jit(nested.update)(p, nested.init(p), p)
    alone, _ = jax.jit(tx.update)(p, tx.init(p), p)
    for name in ("w", "bias"):
        np.testing.assert_allclose(made[name], alone[name], rtol=1e-6)
    assert not made["stack"].any()


def test_mask_and_rate_of_the_rest():
    tx = matrices_and_rest(
        orthogonalize,
        0.1,
        weight_decay=1.0,
        mask=lambda p: {name: name == "w" for name in p},
        rest_learning_rate=0.0,
    )
    p = {"w": jnp.eye(2), "v": jnp.eye(2), "b": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, p)
    made, _ = tx.update(zero, tx.init(p), p)
    np.testing.assert_allclose(made["w"], -0.1 * p["w"])
    np.testing.assert_array_equal(made["v"], 0)
    made, _ = tx.update(p, tx.init(p), p)
    assert made["v"].any() and not made["b"].any()


@pytest.mark.parametrize("make", [delta_momentum, deep_momentum])
def test_numbers_can_be_injected_and_scheduled(make):
    p = params()
    del p["stack"]
    static = {"dims", "mask"} | ({"hidden", "period"} if make is deep_momentum else set())
    tx = optax.inject_hyperparams(make, static)(lambda step: 0.1 / (step + 1), decay=0.9)
    plain = make(0.1, decay=0.9)
    update, state = jax.jit(tx.update), tx.init(p)
    made, state = update(p, state, p)
    wanted, _ = jax.jit(plain.update)(p, plain.init(p), p)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), made, wanted)
    state.hyperparams["decay"] = jnp.float32(0.0)
    update(p, state, p)
    assert update._cache_size() == 1


def test_dims_that_say_nothing_of_a_parameter_are_refused():
    tx = matrices_and_rest(orthogonalize, 0.1, dims={"w": MuonDimensionNumbers()})
    with pytest.raises(ValueError, match="dims says nothing of the parameter 'b'"):
        tx.init({"w": jnp.eye(2), "b": jnp.ones(2)})
