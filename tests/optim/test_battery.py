"""What every optimizer has to do: one row per algorithm, one test per demand."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hope_jax import optim
from hope_jax.nested import Level, Levels


def scaled(rule, **constants):
    """A `scale_by_` rule with a learning rate behind it, as a function of both."""

    def make(learning_rate, **more):
        arguments = {**constants, **more}
        return optax.chain(rule(**arguments), optax.scale_by_learning_rate(learning_rate))

    # inject_hyperparams reads the names of hyper-parameters from the signature
    kind = inspect.Parameter.KEYWORD_ONLY
    own = [p for n, p in inspect.signature(rule).parameters.items() if n not in constants]
    rate = inspect.Parameter("learning_rate", kind)
    make.__signature__ = inspect.Signature([rate, *(p.replace(kind=kind) for p in own)])
    return make


def surprise(m, g):
    """Objective of plain momentum."""
    return jnp.vdot(m, g)


# name: (optimizer, its arguments, learning rates on parabola, Rosenbrock and regression)
TABLE = {
    "dgd": (optim.dgd, {}, (0.1, 2e-3, 0.5)),
    "dgd, paper": (optim.dgd, {"step": "paper"}, (0.1, 2e-3, 0.1)),
    "generalized": (
        scaled(optim.scale_by_generalized_momentum, objective=surprise),
        {"decay": 0.9},
        (0.05, 5e-4, 0.05),
    ),
    "preconditioned": (
        scaled(optim.scale_by_preconditioned_momentum, value=optax.scale_by_rms()),
        {},
        (0.02, 2e-3, 0.02),
    ),
    "learned preconditioner": (
        scaled(optim.scale_by_learned_preconditioner),
        {"rate": 0.5},
        (0.3, 0.02, 0.3),
    ),
    "delta": (optim.delta_momentum, {"delta": 0.5}, (0.5, 0.05, 0.5)),
    "delta, proximal": (
        optim.delta_momentum,
        {"delta": 0.5, "step": "proximal"},
        (0.5, 0.05, 0.5),
    ),
    "feature": (
        scaled(optim.scale_by_feature_momentum, feature="sqrt"),
        {},
        (0.02, 2e-3, 0.02),
    ),
    "deep": (optim.deep_momentum, {"hidden": 8, "rate": 0.1}, (0.5, 0.05, 0.5)),
    "orthogonal": (scaled(optim.orthogonalize), {}, (0.1, 0.01, 0.1)),
    "m3": (optim.m3, {"period": 4, "alpha": 0.2}, (0.5, 0.05, 0.5)),
    # The first step is as large as eps allows where a gradient is zero at the start.
    "m3, literal": (
        scaled(optim.scale_by_m3_literal),
        {"period": 4, "eps": 0.1, "alpha": 0.2},
        (0.4, 0.1, 0.2),
    ),
}
# Arguments that shape the program, wherever they occur.
STATIC = ("period", "hidden", "steps", "inner_steps", "seed", "objective", "nesterov")
every = pytest.mark.parametrize("name", TABLE)


def optimizer(name, learning_rate=0.1):
    make, arguments, _ = TABLE[name]
    return make(learning_rate, **arguments)


# ------------------------------------------------------------------------- problems


def parabola():
    target = jnp.array([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]])
    return {"w": jnp.zeros((2, 3))}, lambda p: jnp.sum((p["w"] - target) ** 2), None


def rosenbrock():
    def loss(params):
        x, y = params["w"][0]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    return {"w": jnp.zeros((1, 2))}, loss, None


def regression():
    x_NK = jax.random.normal(jax.random.key(0), (32, 4))
    y_NZ = x_NK @ jax.random.normal(jax.random.key(1), (4, 3))

    def loss(params):
        return jnp.mean(jnp.sum((x_NK @ params["w"] - y_NZ) ** 2, axis=-1))

    return {"w": jnp.zeros((4, 3))}, loss, {"w": x_NK}


PROBLEMS = {
    "parabola": (parabola, 300),
    "rosenbrock": (rosenbrock, 6000),
    "regression": (regression, 300),
}
# Its steps shrink, and a sum that never decays swings about the minimum.
LITERAL = {"m3, literal": (3000, 0.1)}


@every
@pytest.mark.parametrize("problem", PROBLEMS)
def test_converges(name, problem):
    make_problem, steps = PROBLEMS[problem]
    params, loss, inputs = make_problem()
    make, arguments, rates = TABLE[name]
    steps, part = LITERAL.get(name, (steps, 0.02))
    rate = rates[list(PROBLEMS).index(problem)]
    tx = optax.with_extra_args_support(
        make(optax.cosine_decay_schedule(rate, steps), **arguments)
    )

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(loss)(params)
            updates, state = tx.update(grads, state, params, inputs=inputs or {"w": None})
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), None, steps)[0][0]

    start, end = loss(params), loss(train(params))
    if name.startswith("dgd") and problem == "regression":
        # Its decay pulls as the residual does, which has a factor 2 here: 2/3 of the way.
        np.testing.assert_allclose(end / start, 1 / 9, rtol=0.02)
    else:
        assert end < part * start, f"from {start:.3g} to {end:.3g}"


# ---------------------------------------------------------- behaviour as an optax citizen

COUNT = 6  # updates: a boundary of the slow momentum of M3, and two after it


def some_gradients(params, count=COUNT):
    """A stack of gradients, as from noisy data."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    noise = [
        jax.random.normal(k, (count, *x.shape), x.dtype)
        for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, noise)


def matrices(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(3), 2)
    return {
        "a": jax.random.normal(keys[0], (16, 8), dtype),
        "b": {"w": jax.random.normal(keys[1], (8, 24), dtype)},
    }


def extra(params):
    """Layer inputs for the rules that take them."""
    return {"inputs": jax.tree.map(lambda p: jnp.ones(p.shape[:1], p.dtype) * 0.3, params)}


def follow(tx, params, gradients_N, compiled=1):
    """Parameters and state after updates one by one."""
    tx = optax.with_extra_args_support(tx)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, **extra(params))
        return optax.apply_updates(params, updates), state

    step = jax.jit(step)
    state = jax.jit(tx.init)(params)
    for i in range(len(jax.tree.leaves(gradients_N)[0])):
        params, state = step(params, state, jax.tree.map(lambda g, i=i: g[i], gradients_N))
    assert step._cache_size() <= compiled, "the second update was compiled again"
    return params, state


def assert_close(a, b, tolerance=1e-5):
    def close(x, y):
        scale = 1e-6 + np.abs(np.asarray(y, np.float32)).max(initial=0.0)
        np.testing.assert_allclose(
            np.asarray(x, np.float32), np.asarray(y, np.float32), rtol=0, atol=tolerance * scale
        )

    jax.tree.map(close, a, b)


@every
def test_compiles_once_and_changes_every_parameter(name):
    params = matrices()
    after, _ = follow(optimizer(name), params, some_gradients(params))
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True):
        assert np.isfinite(new).all() and not np.array_equal(old, new)


@every
def test_keeps_dtypes(name):
    tx = optax.with_extra_args_support(optimizer(name))
    params = matrices(jnp.bfloat16)
    grads = jax.tree.map(lambda g: g[0], some_gradients(params))
    state = tx.init(params)
    updates, new_state = tx.update(grads, state, params, **extra(params))
    types = lambda tree: jax.tree.map(lambda x: jnp.asarray(x).dtype, tree)
    assert types(updates) == types(params)
    assert types(new_state) == types(state)
    assert all(
        x.dtype == jnp.bfloat16 for x in jax.tree.leaves(optax.apply_updates(params, updates))
    )


@every
def test_hyperparameters_can_be_injected(name):
    make, arguments, _ = TABLE[name]
    static = tuple(s for s in STATIC if s in inspect.signature(make).parameters)
    numbers = {k for k, v in arguments.items() if isinstance(v, float)}
    tx = optax.inject_hyperparams(make, static_args=static)(learning_rate=0.1, **arguments)
    params = matrices()
    gradients = some_gradients(params)
    plain, _ = follow(optimizer(name), params, gradients)
    injected, state = follow(tx, params, gradients)
    assert_close(injected, plain, 1e-4)
    assert set(state.hyperparams) >= {"learning_rate"} | numbers
    still = tx.init(params)
    still.hyperparams["learning_rate"] = jnp.zeros(())
    updates, _ = tx.update(
        jax.tree.map(lambda g: g[0], gradients), still, params, **extra(params)
    )
    assert not any(np.any(u) for u in jax.tree.leaves(updates))


@every
def test_takes_a_part_of_a_tree(name):
    params = matrices()
    gradients = some_gradients(params)
    tx = optax.multi_transform(
        {"rule": optimizer(name), "still": optax.set_to_zero()}, {"a": "rule", "b": "still"}
    )
    both, _ = follow(tx, params, gradients)
    alone, _ = follow(optimizer(name), {"a": params["a"]}, {"a": gradients["a"]})
    assert_close(both["a"], alone["a"])
    np.testing.assert_array_equal(both["b"]["w"], params["b"]["w"])


@every
def test_runs_inside_scan(name):
    params, tx = matrices(), optax.with_extra_args_support(optimizer(name))
    gradients = some_gradients(params)

    @jax.jit
    def scanned(params):
        def step(carry, grads):
            params, state = carry
            updates, state = tx.update(grads, state, params, **extra(params))
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), gradients)[0][0]

    assert_close(scanned(params), follow(tx, params, gradients)[0])


@every
def test_runs_under_vmap(name):
    """Two models in one call learn what each learns alone."""
    one = matrices()
    params = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), one)
    gradients = jax.tree.map(lambda g: jnp.stack([g, g[::-1]]), some_gradients(one))
    tx = optax.with_extra_args_support(optimizer(name))

    @jax.jit
    @jax.vmap
    def train(params, gradients):
        def step(carry, grads):
            params, state = carry
            updates, state = tx.update(grads, state, params, **extra(params))
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), gradients)[0][0]

    together = train(params, gradients)
    for i in range(2):
        pick = functools.partial(jax.tree.map, lambda x, i=i: x[i])
        assert_close(pick(together), follow(tx, pick(params), pick(gradients))[0], 1e-4)


@every
def test_is_the_inner_optimizer_of_a_level(name):
    """In nested scans as tick by tick, and differentiable through its updates."""
    tx = optimizer(name, 0.01)
    levels = Levels((Level("fast", 1, tx, "a"), Level("slow", 3, tx, "b")))
    params = matrices()
    given = extra(params)
    xs = some_gradients(params, 7)

    def step_fn(params, carry, g):
        grads = jax.tree.map(lambda p, g: 0.1 * p + g, params, g)
        return grads, carry, jax.tree.map(jnp.sum, params), given

    @jax.jit
    def run(params):
        after, state, _, _ = levels.run(step_fn, params, levels.init(params), (), xs, start=0)
        return after

    step, after, state = jax.jit(levels.step), params, levels.init(params)
    for i in range(7):
        grads = step_fn(after, (), jax.tree.map(lambda x, i=i: x[i], xs))[0]
        after, state, _ = step(after, state, grads, **given)
    assert_close(run(params), after, 1e-4)
    outer = jax.jit(jax.grad(lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(run(p)))))
    for g in jax.tree.leaves(outer(params)):
        assert np.isfinite(g).all() and np.any(g)


@every
def test_sharded_over_eight_devices_as_on_one(name):
    params = matrices()
    gradients = some_gradients(params)
    alone, _ = follow(optimizer(name), params, gradients)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("rows", "columns"))
    place = NamedSharding(mesh, PartitionSpec("rows", "columns"))
    rows = NamedSharding(mesh, PartitionSpec(None, "rows", "columns"))
    params, gradients = jax.device_put(params, place), jax.device_put(gradients, rows)
    # Once more for the state, which starts on one device.
    split, _ = follow(optimizer(name), params, gradients, compiled=2)
    assert_close(split, alone, 1e-4)
    assert all(len(x.sharding.device_set) == 8 for x in jax.tree.leaves(split))


# --------------------------------------------------------------------------- bad input


# The others have optax's own learning rate behind them, which takes any number.
@pytest.mark.parametrize(
    "name", [n for n, row in TABLE.items() if row[0].__module__ != __name__]
)
def test_a_negative_rate_is_refused(name):
    make, arguments, _ = TABLE[name]
    with pytest.raises(ValueError, match="learning_rate.*-0.1"):
        make(-0.1, **arguments)
