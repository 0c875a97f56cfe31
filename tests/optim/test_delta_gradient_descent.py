"""The rule against its objective (Eq. 56), the printed forms, and what optax asks of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from hope_jax.nested import Level, Levels
from hope_jax.optim import apply_with_inputs, check_inputs, dgd

K, Z = 6, 5
STEPS = ("proximal", "paper", "gradient")


def f32(*arrays):
    return [jnp.asarray(a, jnp.float32) for a in arrays]


def problem(*lead, n=None, length=None, seed=0):
    """Weights `[..., K, Z]`, inputs `[..., N, K]` (or `[..., K]`) and steps u."""
    rng = np.random.default_rng(seed)
    rows = lead if n is None else (*lead, n)
    w, x, u = (rng.normal(size=s) for s in ((*lead, K, Z), (*rows, K), (*rows, Z)))
    if length is not None:
        x *= length / np.linalg.norm(x, axis=-1, keepdims=True)
    return f32(w, x, u)


def gradient(x, u, mean):
    """Of a loss whose derivative at the outputs is -u (-u / N for a mean)."""
    x, u = (x[..., None, :], u[..., None, :]) if x.ndim == 1 else (x, u)
    return -jnp.swapaxes(x, -1, -2) @ u / (x.shape[-2] if mean else 1)


def one(rule, g, w, x):
    updates, _ = rule.update(g, rule.init(w), w, inputs=x)
    return optax.apply_updates(w, updates)


def objective(w, start, x, u, eta, mean):
    """Eq. 56 for all inputs."""
    x, u = jnp.atleast_2d(x), jnp.atleast_2d(u)
    fit = 0.5 * jnp.sum((x @ w - u) ** 2) / (x.shape[0] if mean else 1)
    return fit + jnp.sum((w - start) ** 2) / (2 * eta)


# One token, one row, fewer rows than K (Woodbury), as many, more.
@pytest.mark.parametrize("n", [None, 1, 3, K, 11])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_proximal_step_minimises_eq_56(n, reduction):
    w, x, u = problem(n=n)
    eta, mean = 0.7, reduction == "mean"
    got = one(dgd(eta, reduction=reduction), gradient(x, u, mean), w, x)
    slope = jax.grad(objective)
    scale = jnp.abs(slope(w, w, x, u, eta, mean)).max()
    assert scale > 0.1
    assert jnp.abs(slope(got, w, x, u, eta, mean)).max() < 1e-5 * scale

    # a quadratic, so Newton from anywhere arrives in one step
    flat = lambda v: objective(v.reshape(K, Z), w, x, u, eta, mean)
    newton = -jnp.linalg.solve(
        jax.hessian(flat)(jnp.zeros(K * Z)), jax.grad(flat)(0 * w.ravel())
    )
    np.testing.assert_allclose(got, newton.reshape(K, Z), atol=1e-5)


@pytest.mark.parametrize("length", [0.1, 1.0, 30.0])
def test_one_input_of_any_length(length):
    """The printed form with eta / (1 + eta lambda^2); Eq. 57 itself at unit length."""
    w, x, u = problem(length=length)
    eta, g = 0.8, gradient(x, u, False)
    printed = lambda rate: w - rate * jnp.outer(x, x @ w) - rate * g
    got = {step: one(dgd(eta, step=step), g, w, x) for step in STEPS}
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5 * length**2)
    close(got["proximal"], printed(eta / (1 + eta * length**2)))
    close(got["paper"], printed(eta / (1 + eta)))
    close(got["gradient"], printed(eta))
    agree = jnp.abs(got["proximal"] - got["paper"]).max() < 1e-5
    assert agree == (length == 1.0)


def test_only_the_proximal_step_is_stable_for_long_inputs():
    w, x, u = problem(n=3, length=50.0)
    g = gradient(x, 0 * u, True)
    norms = {step: jnp.linalg.norm(one(dgd(1.0, step=step), g, w, x)) for step in STEPS}
    start = jnp.linalg.norm(w)
    assert norms["proximal"] < start < norms["paper"] < norms["gradient"]


@pytest.mark.parametrize("n", [None, 3, 11])
@pytest.mark.parametrize("step", STEPS)
def test_leading_axes_are_so_many_weights(step, n):
    w, x, u = problem(2, 3, n=n)
    g = jax.random.normal(jax.random.key(0), w.shape)
    rule = dgd(0.6, step=step, retention=0.9, momentum=0.5)
    got = one(rule, g, w, x)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(got[i], one(rule, g[i], w[i], x[i]), atol=1e-5)


@pytest.mark.parametrize("step", STEPS)
def test_retention_and_momentum(step):
    """Two updates by hand: Eq. 88 with what the step makes of eta, and Titans momentum."""
    w, x, u = problem(n=11, length=1.5)
    eta, alpha, mu, eye = 0.4, 0.8, 0.6, jnp.eye(K)
    gram = x.T @ x / 11
    left = eta * eye
    if step == "proximal":
        left = eta * jnp.linalg.inv(eye + eta * gram)
    elif step == "paper":
        left = eta / (1 + eta) * eye
    rule = dgd(eta, step=step, retention=alpha, momentum=mu)
    state, got, want, s = rule.init(w), w, w, 0 * w
    for seed in (1, 2):
        g = jax.random.normal(jax.random.key(seed), w.shape)
        updates, state = rule.update(g, state, got, inputs=x)
        got = optax.apply_updates(got, updates)
        s = mu * s - left @ g
        want = alpha * want - left @ gram @ want + s
        np.testing.assert_allclose(got, want, atol=1e-5)
        np.testing.assert_allclose(state.momentum, s, atol=1e-5)
    assert state.count == 2


def test_momentum_of_zero_is_none():
    w, x, u = problem(n=11)
    g = gradient(x, u, True)
    np.testing.assert_allclose(
        one(dgd(0.5, momentum=0.0), g, w, x), one(dgd(0.5), g, w, x), atol=1e-6
    )


@pytest.mark.parametrize("step", STEPS)
def test_parameters_without_inputs_get_gradient_descent(step):
    params = {"kernel": jnp.ones((K, Z)), "bias": jnp.full(Z, 2.0), "scale": jnp.ones(K)}
    grads = jax.tree.map(jnp.ones_like, params)
    rule = dgd(0.1, step=step, retention=0.5)
    for inputs in ({"kernel": None, "bias": None, "scale": None}, {}):
        got = one(rule, grads, params, inputs)
        for name, w in params.items():
            np.testing.assert_allclose(got[name], 0.5 * w - 0.1, rtol=1e-6)


def test_dtypes():
    """bfloat16 in and out, float32 between: rounded once, at the end."""
    low = [v.astype(jnp.bfloat16) for v in problem(n=3)]
    high = [v.astype(jnp.float32) for v in low]
    rule, results = dgd(0.5, momentum=0.9), []
    for w, x, _ in (low, high):
        g = gradient(*high[1:], True).astype(jnp.bfloat16).astype(w.dtype)
        results.append(rule.update(g, rule.init(w), w, inputs=x))
    (got, state), (want, want_state) = results
    assert got.dtype == jnp.bfloat16 and state.momentum.dtype == jnp.float32
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))
    np.testing.assert_array_equal(state.momentum, want_state.momentum)


def test_schedule_counts_updates():
    w, x, u = problem(n=3)
    g = gradient(x, u, True)
    rule = dgd(lambda count: jnp.where(count == 0, 0.0, 0.5))
    first, state = rule.update(g, rule.init(w), w, inputs=x)
    second, _ = rule.update(g, state, w, inputs=x)
    assert (first == 0).all()
    np.testing.assert_allclose(second, dgd(0.5).update(g, rule.init(w), w, inputs=x)[0])


def test_injected_numbers_change_without_compiling_again():
    w, x, u = problem(n=3)
    g = gradient(x, u, True)
    rule = optax.inject_hyperparams(dgd)(0.5, retention=1.0, momentum=0.0)
    step = jax.jit(lambda g, state, w: rule.update(g, state, w, inputs=x))
    _, state = step(g, rule.init(w), w)
    for eta, alpha, mu in ((0.1, 0.9, 0.3), (0.7, 0.2, 0.6)):
        numbers = dict(learning_rate=eta, retention=alpha, momentum=mu)
        state = state._replace(hyperparams=jax.tree.map(jnp.float32, numbers))
        want, _ = dgd(eta, retention=alpha, momentum=mu).update(
            g, state.inner_state, w, inputs=x
        )
        got, state = step(g, state, w)
        np.testing.assert_allclose(got, want, atol=1e-6)
    assert step._cache_size() == 1


def test_partition_scan_and_vmap_together():
    """Matrices by DGD and the rest by SGD; a scan of updates for several models at once."""
    w, x, u = problem(4, n=7)
    params = {"a": {"kernel": w, "bias": u[:, 0]}, "b": {"kernel": w + 1}}
    label = lambda p: jax.tree.map_with_path(
        lambda path, _: "dgd" if path[-1].key == "kernel" else "sgd", p
    )
    rule = optax.partition({"dgd": dgd(0.3, momentum=0.5), "sgd": optax.sgd(0.1)}, label)

    def loss(params, x, u):
        return 0.5 * jnp.mean(jnp.sum((x @ params["a"]["kernel"] - u) ** 2, axis=-1)) + sum(
            jnp.sum(p**2) for p in jax.tree.leaves(params)
        )

    def inputs(x):
        return {"a": {"kernel": x, "bias": None}, "b": {"kernel": 2 * x}}

    def train(params, x, u):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(loss)(params, x, u)
            updates, state = rule.update(grads, state, params, inputs=inputs(x))
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, rule.init(params)), None, length=3)[0][0]

    got = jax.jit(jax.vmap(train))(params, x, u)
    for i in range(4):
        want, xi, ui = jax.tree.map(lambda v, i=i: v[i], (params, x, u))
        single = dgd(0.3, momentum=0.5)
        states = {k: single.init(want[k]["kernel"]) for k in "ab"}
        for _ in range(3):
            grads = jax.grad(loss)(want, xi, ui)
            new = {"a": {"bias": want["a"]["bias"] - 0.1 * grads["a"]["bias"]}, "b": {}}
            for k in "ab":
                update, states[k] = single.update(
                    grads[k]["kernel"], states[k], want[k]["kernel"],
                    inputs=inputs(xi)[k]["kernel"],
                )  # fmt: skip
                new[k]["kernel"] = want[k]["kernel"] + update
            want = new
        jax.tree.map(
            lambda g, w, i=i: np.testing.assert_allclose(g[i], w, atol=1e-4), got, want
        )


def test_a_partition_without_matrices_ignores_their_inputs():
    params = {"w": jnp.ones((K, Z)), "b": jnp.ones(Z)}
    rule = optax.partition(
        {"dgd": dgd(0.5), "none": optax.set_to_zero()}, {"w": "none", "b": "dgd"}
    )
    got = one(rule, params, params, {"w": jnp.ones((3, K)), "b": None})
    np.testing.assert_allclose(got["b"], 0.5)


@pytest.mark.parametrize("rows", [4, 16])
def test_sharded_trees(rows):
    rng = np.random.default_rng(0)
    w, g, x = f32(*(rng.normal(size=s) for s in ((8, 4), (8, 4), (rows, 8))))
    rule = dgd(0.5, momentum=0.5)
    want = rule.update(g, rule.init(w), w, inputs=x)[0]
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    place = lambda v, *axes: jax.device_put(v, NamedSharding(mesh, PartitionSpec(*axes)))
    w_s, g_s = place(w, "data", "model"), place(g, "data", "model")
    step = jax.jit(lambda g, s, w, x: rule.update(g, s, w, inputs=x))
    got, _ = step(g_s, rule.init(w_s), w_s, place(x, "data", None))
    assert len(got.sharding.device_set) == 8
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_settles_where_gradient_and_decay_cancel():
    """For half the squared error that is half the least-squares solution, as for memories."""
    x, y = f32(*(np.random.default_rng(0).normal(size=s) for s in ((20, K), (20, Z))))
    want = 0.5 * jnp.linalg.lstsq(x, y)[0]
    rule = dgd(1.0)

    def step(w, _):
        g = x.T @ (x @ w - y) / 20
        return w + rule.update(g, rule.init(w), w, inputs=x)[0], None

    got = jax.lax.scan(step, jnp.ones((K, Z)), None, length=300)[0]
    np.testing.assert_allclose(got, want, atol=1e-5)


WEIGHT = 50.0  # of the loss, against the answers that the rule holds down


@pytest.mark.parametrize("step", STEPS)
def test_trains_an_mlp(step):
    """The rule is used in every layer of an MLP, and trains it."""
    model = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(16), nn.tanh, nn.Dense(2)])
    x = jax.random.normal(jax.random.key(0), (64, 3))
    y = jnp.stack([jnp.sin(x[:, 0]), x[:, 1] * x[:, 2]], axis=-1)
    start = model.init(jax.random.key(1), x)["params"]
    eta = 2e-3
    rule = dgd(eta, step=step)

    def loss(params):
        out, inputs = apply_with_inputs(model, {"params": params}, x)
        return WEIGHT * jnp.mean(jnp.sum((out - y) ** 2, axis=-1)), inputs

    @jax.jit
    def train(params, state):
        (value, inputs), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = rule.update(grads, state, params, inputs=inputs)
        return optax.apply_updates(params, updates), state, value

    params, state, before = train(start, rule.init(start))
    (_, inputs), grads = jax.value_and_grad(loss, has_aux=True)(start)
    for name, layer in start.items():
        rows, w, g = inputs[name]["kernel"], layer["kernel"], grads[name]["kernel"]
        eye, gram = jnp.eye(len(w)), rows.T @ rows / 64
        want = {
            "proximal": jnp.linalg.inv(eye + eta * gram) @ (w - eta * g),
            "paper": w - eta / (1 + eta) * (gram @ w + g),
            "gradient": w - eta * (gram @ w + g),
        }[step]
        np.testing.assert_allclose(params[name]["kernel"], want, atol=1e-6)
        plain = w - eta * g
        assert jnp.abs(params[name]["kernel"] - plain).max() > 1e-4
        bias = layer["bias"] - eta * grads[name]["bias"]
        np.testing.assert_allclose(params[name]["bias"], bias, atol=1e-6)
    for _ in range(400):
        params, state, value = train(params, state)
    assert value < before / 10
    assert train._cache_size() == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(learning_rate=-0.1),
            "dgd: learning_rate is -0.1; use a number from 0",
        ),
        (dict(learning_rate=float("nan")), "learning_rate is nan"),
        (dict(learning_rate=jnp.ones(3)), r"learning_rate has shape \(3,\).*jax.vmap"),
        (dict(learning_rate=0.1, retention=1.5), "retention is 1.5; .* from 0 to 1"),
        (dict(learning_rate=0.1, retention=-0.5), "retention is -0.5; .* from 0 to 1"),
        (dict(learning_rate=0.1, momentum=2.0), "momentum is 2.0; .* from 0 to 1"),
        (dict(learning_rate=0.1, step="exact"), "step is 'exact'; use one of 'proximal'"),
        (dict(learning_rate=0.1, reduction="max"), "reduction is 'max'; use one of 'mean'"),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        dgd(**arguments)


def test_injected_numbers_are_checked_where_they_are_known():
    with pytest.raises(ValueError, match="learning_rate is -1"):
        optax.inject_hyperparams(dgd)(-1.0).init(jnp.ones((K, Z)))


@pytest.mark.parametrize(
    "shape, x, message",
    [
        ((K, Z), (Z,), r"'layer/w' have shape \(5,\).*\(6, 5\); give \(6,\) .*or \(N, 6\)"),
        ((K, Z), (2, 3, K), r"shape \(2, 3, 6\)"),
        ((2, K, Z), (3, K), r"give \(2, 6\) for one token or \(2, N, 6\)"),
        ((2, K, Z), (3, 7, K), r"shape \(3, 7, 6\)"),
        ((Z,), (3, Z), r"only matrices .* have inputs, so give None"),
        ((Z,), (), r"only matrices .* have inputs, so give None"),
    ],
)
def test_inputs_that_do_not_fit(shape, x, message):
    params = {"layer": {"w": jnp.ones(shape)}}
    rule = dgd(0.1)
    with pytest.raises(ValueError, match=message):
        rule.update(params, rule.init(params), params, inputs={"layer": {"w": jnp.ones(x)}})


def test_missing_arguments():
    params = {"w": jnp.ones((K, Z))}
    rule = dgd(0.1)
    with pytest.raises(ValueError, match="inputs=inputs.*hope_jax.optim.apply_with_inputs"):
        rule.update(params, rule.init(params), params)
    with pytest.raises(ValueError, match="needs them: update.gradients, state, params"):
        rule.update(params, rule.init(params), inputs={})


def test_names_of_inputs_are_checked_against_the_whole_model():
    params = {"w": jnp.ones((K, Z)), "b": jnp.ones(Z)}
    check_inputs(params, {"w": jnp.ones(K), "b": None})
    check_inputs(jax.eval_shape(lambda: params), {"w": jnp.ones(K)})
    for inputs in ({"params": {"w": jnp.ones(K)}}, {"w": jnp.ones(K), "v": jnp.ones(K)}):
        wrong = "v" if "v" in inputs else "params/w"
        with pytest.raises(ValueError, match=f"inputs are at '{wrong}', but the parameters"):
            check_inputs(params, inputs)
    with pytest.raises(ValueError, match="inputs of 'w' have shape"):
        check_inputs(params, {"w": jnp.ones(Z)})


def test_a_level_without_inputs_leaves_those_of_others_alone():
    params = {"w": jnp.ones((K, Z)), "scale": jnp.ones(Z)}
    levels = Levels((Level("w", 1, dgd(0.5), "w"), Level("rest", 1, dgd(0.5))))
    inputs = {"w": jnp.ones((3, K))}
    got, _, _ = levels.step(params, levels.init(params), params, inputs=inputs)
    np.testing.assert_allclose(got["scale"], 0.5)
    want = one(dgd(0.5), params["w"], params["w"], inputs["w"])
    np.testing.assert_allclose(got["w"], want, rtol=1e-6)
