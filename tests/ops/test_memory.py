"""Evaluation and written-out gradients of the memories against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_cases import make_memories, make_spec
from plain_memories import Plain, apply, inner_loss, unit

from hope_jax.ops.memory import Frozen, evaluate, local_gradients, view


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"objective": "dot"},
        {"hidden_norm": "none", "grad_factor": 2.0},
        {"hidden_norm": "centred"},
        {"kind": "linear"},
        {"targets": "shared"},
    ],
)
def test_gradients_are_those_of_the_inner_loss(fields):
    spec = make_spec(memory=fields).groups[0].spec
    (memories,) = make_memories(make_spec(memory=fields), heads=1)
    one = jax.tree.map(lambda w: w[0], memories)
    z = jax.random.normal(jax.random.key(3), (2, spec.size))
    k, v = unit(z[0]), unit(z[1])
    frozen = Frozen(view(spec, jax.tree.map(lambda w: w[None], memories)))
    grads = local_gradients(spec, frozen, k[None, None, None], v[None, None, None])
    opt = Plain(
        kind=spec.kind,
        objective=spec.objective,
        hidden_norm=spec.hidden_norm,
        grad_factor=spec.grad_factor,
    )
    for name in (*spec.values, *spec.rates):
        columns, residual = spec.columns(name), name in spec.values
        w = {"in": one.w_in[:, columns].T}
        if spec.kind == "mlp":
            stack = spec.values if residual else spec.rates
            second = one.w_value if residual else one.w_rate
            w["out"] = second[stack.index(name)].T
        out = evaluate(spec, name, frozen, k[None, None, None])
        np.testing.assert_allclose(
            out.reshape(-1), apply(opt, w, k, residual), rtol=1e-5, atol=1e-6
        )
        shared = fields.get("targets") == "shared" and residual
        target = v if shared else apply(opt, w, v, residual)
        want = jax.grad(lambda w: inner_loss(opt, w, k, target, residual))(w)  # noqa: B023
        got = jnp.outer(grads.in_CZ[0, 0, 0, columns], k)
        np.testing.assert_allclose(got, want["in"], rtol=1e-4, atol=1e-5)
        if spec.kind == "mlp":
            i = stack.index(name)
            g = (grads.value if residual else grads.rate)[0, 0, i, 0]
            h = (grads.value_at_key if residual else grads.rate_at_key).hidden[0, 0, i, 0]
            np.testing.assert_allclose(jnp.outer(g, h), want["out"], rtol=1e-4, atol=1e-5)


def test_columns_do_not_overlap():
    spec = make_spec().groups[0].spec
    taken = [c for name in spec.widths for c in range(100)[spec.columns(name)]]
    assert taken == list(range(sum(spec.widths.values())))
    with pytest.raises(KeyError):
        spec.columns("q")
