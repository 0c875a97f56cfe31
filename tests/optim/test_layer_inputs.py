"""What is recorded is what the layers were given, through the transformations of Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.nested.paths import flatten
from hope_jax.optim import apply_with_inputs, dgd

D = 4


def make(module, x, **rngs):
    keys = {name: jax.random.key(i) for i, name in enumerate(("params", *rngs))}
    return module.init(keys, x)


def data(*shape):
    return jax.random.normal(jax.random.key(9), shape)


class Block(nn.Module):
    """One layer, with a scale that has no inputs."""

    @nn.compact
    def __call__(self, x, _=None):
        x = nn.LayerNorm(name="norm")(x)
        x = nn.tanh(nn.Dense(D, name="dense")(x))
        return x if _ is None else (x, None)


class Mlp(nn.Module):
    wrap: type = nn.Dense

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(self.wrap(8, name="first")(x))
        return self.wrap(2, name="second")(x)


def test_inputs_of_an_mlp():
    x = data(3, 5, D)
    variables = make(Mlp(), x)
    y, inputs = apply_with_inputs(Mlp(), variables, x)
    np.testing.assert_array_equal(y, Mlp().apply(variables, x))
    first = variables["params"]["first"]
    hidden = jnp.tanh(x @ first["kernel"] + jnp.broadcast_to(first["bias"], (3, 5, 8)))
    np.testing.assert_array_equal(inputs["first"]["kernel"], x.reshape(15, D))
    np.testing.assert_allclose(inputs["second"]["kernel"], hidden.reshape(15, 8), atol=1e-6)
    assert inputs["first"]["bias"] is None and inputs["second"]["bias"] is None
    assert inputs.keys() == variables["params"].keys()


def test_one_token_and_the_root_layer():
    layer, x = nn.Dense(3), data(D)
    variables = make(layer, x)
    y, inputs = apply_with_inputs(layer, variables, inputs=x)  # Dense calls it `inputs`
    assert y.shape == (3,)
    np.testing.assert_array_equal(inputs["kernel"], x[None])


@pytest.mark.parametrize("wrap", [nn.remat, nn.jit])
def test_remat_and_jit(wrap):
    x = data(5, D)
    variables = make(Mlp(), x)
    want = apply_with_inputs(Mlp(), variables, x)[1]
    wrapped = wrap(Mlp)()
    wrapped.apply(variables, x)  # nn.jit keeps what it traced without a record
    for module in (wrapped, Mlp(wrap(nn.Dense))):
        got = jax.jit(lambda v, module=module: apply_with_inputs(module, v, x)[1])(variables)
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-6), got, want)


def test_jit_inside_does_not_keep_the_record_of_other_layers():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x @ self.param("w", nn.initializers.normal(), (D, D))

    class Both(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(D, name="dense")(Own(name="own")(x))

    module, x = nn.jit(Both)(), data(5, D)
    variables = make(module, x)
    inputs = apply_with_inputs(module, variables, x)[1]
    assert flatten(inputs).keys() == {"dense/kernel"}
    inputs = apply_with_inputs(module, variables, x, layers=(nn.Dense, Own))[1]
    assert flatten(inputs).keys() == {"dense/kernel", "own/w"}
    np.testing.assert_array_equal(inputs["own"]["w"], x)


class Stack(nn.Module):
    """Three blocks as one scan: with weights of their own, or with the same."""

    shared: bool = False
    lifted: bool = True
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        axes = {"layer_inputs": 0} if self.lifted else {}
        axes |= {} if self.shared else {"params": 0}
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        scan = nn.scan(
            block,
            variable_axes=axes,
            variable_broadcast="params" if self.shared else False,
            split_rngs={"params": not self.shared},
            length=3,
            in_axes=nn.broadcast,
        )
        return scan(name="block")(x, 0)[0]


@pytest.mark.parametrize("remat", [False, True])
def test_scan_over_layers(remat):
    x = data(5, D)
    module = Stack(remat=remat)
    variables = make(module, x)
    y, inputs = apply_with_inputs(module, variables, x)
    got = inputs["block"]["dense"]["kernel"]
    assert got.shape == (3, 5, D)
    for i in range(3):
        own = jax.tree.map(lambda w, i=i: w[i], variables["params"]["block"])
        x, one = apply_with_inputs(Block(), {"params": own}, x)
        np.testing.assert_allclose(got[i], one["dense"]["kernel"], atol=1e-6)
    np.testing.assert_allclose(y, x, atol=1e-6)


def test_scan_with_shared_weights_gives_all_inputs():
    x = data(5, D)
    module = Stack(shared=True)
    variables = make(module, x)
    got = apply_with_inputs(module, variables, x)[1]["block"]["dense"]["kernel"]
    want = []
    for _ in range(3):
        x, one = apply_with_inputs(Block(), {"params": variables["params"]["block"]}, x)
        want.append(one["dense"]["kernel"])
    np.testing.assert_allclose(got, jnp.concatenate(want), atol=1e-6)


class Heads(nn.Module):
    stacked: int | None = 0

    @nn.compact
    def __call__(self, x):
        many = nn.vmap(
            nn.Dense,
            variable_axes={"params": self.stacked, "layer_inputs": 0},
            split_rngs={"params": self.stacked is not None},
        )
        return many(3, name="heads")(x)


def test_vmap():
    x = data(2, 5, D)
    inputs = apply_with_inputs(Heads(), make(Heads(), x), x)[1]
    np.testing.assert_array_equal(inputs["heads"]["kernel"], x)
    shared = Heads(stacked=None)
    inputs = apply_with_inputs(shared, make(shared, x), x)[1]
    np.testing.assert_array_equal(inputs["heads"]["kernel"], x.reshape(10, D))
    one = lambda x: apply_with_inputs(Mlp(), make(Mlp(), x), x)[1]
    inputs = jax.vmap(one)(x)
    np.testing.assert_array_equal(inputs["first"]["kernel"], x)


def test_a_layer_applied_twice_has_all_its_inputs():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.Dense(D, name="layer")
            return layer(layer(x)[:2])

    x = data(5, D)
    variables = make(Twice(), x)
    inputs = apply_with_inputs(Twice(), variables, x)[1]
    once = nn.Dense(D).apply({"params": variables["params"]["layer"]}, x)
    want = jnp.concatenate([x, once[:2]])
    np.testing.assert_allclose(inputs["layer"]["kernel"], want, atol=1e-6)


def test_other_collections_and_random_numbers():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(D, name="first")(x)
            x = nn.BatchNorm(use_running_average=False)(x)
            x = nn.Dropout(0.5, deterministic=False)(x)
            return nn.Dense(2, name="second")(x)

    x = data(5, D)
    variables = make(Noisy(), x, dropout=True)
    options = dict(rngs={"dropout": jax.random.key(5)}, mutable="batch_stats")
    (y, changed), inputs = apply_with_inputs(Noisy(), variables, x, **options)
    want, want_changed = Noisy().apply(variables, x, **options)
    np.testing.assert_array_equal(y, want)
    assert changed.keys() == {"batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, changed, dict(want_changed))
    assert (inputs["second"]["kernel"] == 0).any()  # dropped


def test_boxed_parameters_keep_their_boxes():
    init = nn.with_partitioning(nn.initializers.lecun_normal(), ("data", "model"))
    module, x = nn.Dense(3, kernel_init=init), data(5, D)
    variables = make(module, x)
    params = variables["params"]
    inputs = apply_with_inputs(module, variables, x)[1]
    rule = dgd(0.5)
    got, _ = rule.update(params, rule.init(params), params, inputs=inputs)
    w, x = nn.meta.unbox(params), nn.meta.unbox(inputs)
    want, _ = rule.update(w, rule.init(w), w, inputs=x)
    jax.tree.map(np.testing.assert_array_equal, nn.meta.unbox(got), want)
    assert not np.allclose(want["kernel"], -0.5 * w["kernel"])


def test_scanned_layers_learn_by_their_own_inputs():
    """The whole way, with stacked weights: each layer's update is that of the layer alone."""
    module, x = Stack(), data(5, D)
    params = make(module, x)["params"]
    rule = dgd(0.3)

    def loss(params):
        y, inputs = apply_with_inputs(module, {"params": params}, x)
        return jnp.mean(jnp.sum((y - 1) ** 2, axis=-1)), inputs

    (_, inputs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    updates, _ = rule.update(grads, rule.init(params), params, inputs=inputs)
    pick = lambda tree: tree["block"]["dense"]["kernel"]
    for i in range(3):
        g, w, x_NK = pick(grads)[i], pick(params)[i], pick(inputs)[i]
        alone, _ = rule.update(g, rule.init(w), w, inputs=x_NK)
        np.testing.assert_allclose(pick(updates)[i], alone, atol=1e-6)
    scale = lambda tree: tree["block"]["norm"]["scale"]
    np.testing.assert_allclose(scale(updates), -0.3 * scale(grads), rtol=1e-6)


class Two(nn.Module):
    """Branches or a loop around layers, which cannot hand out a record."""

    loop: bool

    def setup(self):
        self.a, self.b = nn.Dense(D), nn.Dense(D)

    def __call__(self, x):
        if self.is_initializing():
            return self.a(x) + self.b(x)
        if self.loop:
            less, body = (lambda m, c: c[0] < 3), (lambda m, c: (c[0] + 1, m.a(c[1])))
            return nn.while_loop(less, body, self, (0, x))[1]
        return nn.cond(x[0, 0] > 0, lambda m, x: m.a(x), lambda m, x: m.b(x), self, x)


@pytest.mark.parametrize(
    "module, error, message",
    [
        (
            Stack(lifted=False),
            ValueError,
            "'block/dense' .* add \"layer_inputs\": 0 to the var",
        ),
        (Heads(stacked=1), ValueError, r"weights of shape \(4, 2, 3\) and inputs of shape"),
        (Two(loop=True), ValueError, "'a' is inside a lifted transformation"),
        (Two(loop=False), TypeError, "same pytree structure"),
    ],
    ids=["scan", "axis 1", "while", "cond"],
)
def test_transformations_that_lose_inputs(module, error, message):
    x = data(2, 5, D) if isinstance(module, Heads) else data(5, D)
    variables = make(module, x)
    module.apply(variables, x)
    with pytest.raises(error, match=message):
        apply_with_inputs(module, variables, x)


def test_a_scan_of_shared_use_around_stacked_layers():
    """Stacked weights in a loop that shares them: which axis is which is not known."""

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                lambda m, x, _: (m(x), None),
                variable_axes={"layer_inputs": 0},
                variable_broadcast="params",
                split_rngs={"params": False},
                length=2,
            )
            return scan(Stack(name="stack"), x, None)[0]

    x = data(5, D)
    variables = make(Twice(), x)
    with pytest.raises(ValueError, match=r"weights of shape \(3, 4, 4\).*\(2, 3, 5, 4\)"):
        apply_with_inputs(Twice(), variables, x)


def test_layers_that_are_not_supported():
    x = data(5, D)
    conv = nn.Conv(3, (2,))
    with pytest.raises(ValueError, match="no layer of Conv that was called is a Dense"):
        apply_with_inputs(conv, make(conv, x), x)
    with pytest.raises(ValueError, match=r"'Conv' .*'kernel': \(2, 4, 3\).*only layers with"):
        apply_with_inputs(conv, make(conv, x), x, layers=nn.Conv)
    heads = nn.MultiHeadDotProductAttention(2)
    with pytest.raises(ValueError, match=r"'query' \(DenseGeneral\)"):
        apply_with_inputs(heads, make(heads, x), x, layers=nn.DenseGeneral)
    with pytest.raises(ValueError, match="mutable=True; give the names"):
        apply_with_inputs(Mlp(), make(Mlp(), x), x, mutable=True)
