"""A CMS that learns while it reads equals a plain loop, for each text on its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    GatedDeltaNetConfig,
    InContextConfig,
    MeshConfig,
    ModelConfig,
    SelfModifyingConfig,
)
from hope_jax.layers.continuum import level_mlp
from hope_jax.layers.norm import rms_norm
from hope_jax.models import LanguageModel, init_params, next_token_losses, param_shapes
from hope_jax.models.in_context import Reader, fresh_fast, in_context_losses
from hope_jax.ops.own_gradient import plain_gradients
from hope_jax.parallel import batch_sharding, make_mesh, param_shardings, use_mesh

MIXERS = {
    "attention": AttentionConfig(heads=2),
    "gated_delta_net": GatedDeltaNetConfig(heads=2, chunk=4),
    "self_modifying": SelfModifyingConfig(heads=2, chunk=4, rate_hidden=4),
}
SLOW = pytest.mark.slow
HOW = InContextConfig(chunks=(4, 8), blocks=1, lr=2.0, clip=0.1)


def make(mixer="gated_delta_net", variant="sequential", **how):
    cms = CMSConfig((1, 4), 16, variant, in_context=dataclasses.replace(HOW, **how))
    return ModelConfig(vocab_size=16, dim=8, depth=2, mixer=MIXERS[mixer], cms=cms)


@pytest.fixture(scope="module")
def texts():
    return jax.random.randint(jax.random.key(3), (2, 14), 0, 16)


def params_of(config):
    params = init_params(config, jax.random.key(0))
    # larger than at the start, so that updates and errors in them show
    return jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, params)


@functools.partial(jax.jit, static_argnums=0)
def losses_of(config, params, tokens_BT, reset_BT=None, drop_BT=None):
    """Loss of every token."""
    parts = tokens_BT[:, :-1], tokens_BT[:, 1:], reset_BT, drop_BT
    return in_context_losses(config, params, *parts)[0]


@functools.partial(jax.jit, static_argnums=0)
def frozen_losses(config, params, tokens_BT, reset_BT=None):
    """Loss of every token without learning."""
    apply = LanguageModel(config).apply
    out = apply({"params": params}, tokens_BT[:, :-1], reset_BT=reset_BT)
    return next_token_losses(out.logits_BTW, tokens_BT[:, 1:])


@functools.partial(jax.jit, static_argnums=0)
def both(config, params, tokens_BT, reset_BT=None):
    """Losses and the gradient of a weighted sum of them."""

    def loss(params):
        losses_BT = in_context_losses(
            config, params, tokens_BT[:, :-1], tokens_BT[:, 1:], reset_BT
        ).losses_BT
        weights_T = jnp.cos(jnp.arange(losses_BT.shape[1]))
        return (losses_BT @ weights_T).sum(), losses_BT

    (_, losses_BT), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return losses_BT, grads


def plain(config, params, tokens_T):
    """One text, chunk by chunk, with the weights of the last blocks written over."""
    how, model = config.cms.in_context, LanguageModel(config)
    names = [f"period_{p}" for p in config.cms.periods]
    initial = {n: params["blocks"]["cms"][n] for n in names}
    moved = {
        n: {
            k: jnp.zeros_like(w[-how.blocks :])
            for k, w in initial[n].items()
            if k.startswith("w_")
        }
        for n in names
    }
    anchor = moved[names[0]]  # initial value of the fast level, owned by the slow one
    sums = {n: jax.tree.map(jnp.zeros_like, moved[n]) for n in names}
    sum_of_anchor = jax.tree.map(jnp.zeros_like, anchor)
    state, losses, chunk = None, [], how.chunk
    for start in range(0, len(tokens_T) - 1, chunk):
        end = min(start + chunk, len(tokens_T) - 1)
        inputs, targets = tokens_T[None, start:end], tokens_T[None, start + 1 : end + 1]

        def loss(moved, state=state, inputs=inputs, targets=targets):
            cms = {n: dict(initial[n]) for n in names}
            for n in names:
                for k, change in moved[n].items():
                    cms[n][k] = cms[n][k].at[-how.blocks :].add(change)
            blocks = {**params["blocks"], "cms": {**params["blocks"]["cms"], **cms}}
            out = model.apply({"params": {**params, "blocks": blocks}}, inputs, state)
            found = next_token_losses(out.logits_BTW, targets)
            return found.mean(), (found[0], out.state)

        with plain_gradients():
            grads, (found, state) = jax.grad(loss, has_aux=True)(moved)
        losses.append(found)
        if end - start < chunk:
            break
        if how.outer == "first_order":
            grads = jax.lax.stop_gradient(grads)
        sums = jax.tree.map(jnp.add, sums, grads)
        sum_of_anchor = jax.tree.map(jnp.add, sum_of_anchor, grads[names[0]])
        for n, tokens in zip(names, how.chunks, strict=True):
            if end % tokens:
                continue
            mean = functools.partial(jax.tree.map, lambda g, k=tokens // chunk: g / k)
            own = {n: mean(sums[n])}
            nested = config.cms.variant == "nested" and n == names[1]
            if nested:
                own["anchor"] = mean(sum_of_anchor)
            rate = how.lr * jnp.minimum(1.0, how.clip / optax.tree.norm(own))
            step = functools.partial(jax.tree.map, lambda w, g, rate=rate: w - rate * g)
            moved[n] = step(moved[n], own[n])
            sums[n] = jax.tree.map(jnp.zeros_like, sums[n])
            if nested:
                anchor = step(anchor, own["anchor"])
                sum_of_anchor = jax.tree.map(jnp.zeros_like, sum_of_anchor)
                moved[names[0]] = anchor
    return jnp.concatenate(losses)


def close(found, expected, scale=1.0):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4 * scale, atol=2e-5 * scale),
        found,
        expected,
    )


@pytest.mark.parametrize(
    ("mixer", "blocks"),
    [
        pytest.param("gated_delta_net", 1, marks=pytest.mark.slow),
        pytest.param("attention", 2, marks=pytest.mark.slow),
        pytest.param("self_modifying", 1, marks=pytest.mark.slow),
    ],
)
def test_equals_a_plain_loop_in_value_and_gradient(mixer, blocks, texts):
    texts = texts if mixer == "attention" else texts[:, :10]  # the others take long to compile
    config = make(mixer, blocks=blocks)
    params = params_of(config)
    losses_BT, grads = both(config, params, texts)

    def loss(params):
        losses_BT = jax.vmap(lambda row_T: plain(config, params, row_T))(texts)
        return (losses_BT @ jnp.cos(jnp.arange(losses_BT.shape[1]))).sum(), losses_BT

    (_, expected_BT), expected = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    close(losses_BT, expected_BT)
    del grads["in_context"], expected["in_context"]  # the loop has no learned rates
    close(grads, expected, 10.0)
    frozen_BT = frozen_losses(config, params, texts)
    assert abs(losses_BT - frozen_BT)[:, 4:].max() > 0.01  # there was something to compare
    np.testing.assert_allclose(losses_BT[:, :4], frozen_BT[:, :4], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["nested", "independent"])
def test_other_variants_equal_the_plain_loop(variant, texts):
    config = make(variant=variant)
    params = params_of(config)
    losses_BT = losses_of(config, params, texts)
    alone = jax.jit(jax.vmap(lambda row_T: plain(config, params, row_T)))
    close(losses_BT, alone(texts))


def test_rate_zero_is_the_frozen_model(texts):
    config = make(lr=0.0)
    params = params_of(config)
    losses_BT = losses_of(config, params, texts)
    close(losses_BT, frozen_losses(config, params, texts), 0.1)


@pytest.mark.slow
def test_first_order_changes_gradients_and_not_losses(texts):
    params = params_of(make())
    losses_BT, grads = both(make(), params, texts)
    same_BT, first = both(make(outer="first_order"), params, texts)
    np.testing.assert_array_equal(losses_BT, same_BT)
    table, first_table = grads["embed"]["table"], first["embed"]["table"]
    assert abs(table - first_table).max() > 1e-3 * abs(table).max()
    assert first["in_context"]["log_rate_period_1"].any()


NESTED = {"variant": "nested", "chunks": (2, 4)}  # 6 is in the second period of the slow level


@pytest.mark.parametrize(
    "how, at",
    [
        *(pytest.param({"rule": r}, 6, marks=SLOW) for r in ("sgd", "momentum")),
        *(pytest.param({"rule": r}, 8, marks=SLOW) for r in ("sgd", "momentum", "adam")),
        ({"rule": "adam"}, 6),
        (NESTED | {"rule": "sgd"}, 6),
        pytest.param(NESTED | {"rule": "adam"}, 6, marks=SLOW),
        pytest.param(NESTED | {"rule": "sgd"}, 8, marks=SLOW),
    ],
)
def test_a_document_that_begins_in_a_row_knows_nothing_of_the_one_before(how, at, texts):
    config = make(**how)
    params = params_of(config)
    reset_BT = jnp.zeros((2, 13), bool).at[1, at].set(True)
    losses_BT = losses_of(config, params, texts, reset_BT)
    whole_BT = losses_of(config, params, texts)
    close(losses_BT[0], whole_BT[0])
    close(losses_BT[1, :at], whole_BT[1, :at])
    other = texts.at[1, :at].set((texts[1, :at] + 5) % 16)
    other_BT = losses_of(config, params, other, reset_BT)
    close(losses_BT[1, at:], other_BT[1, at:])
    if at == 8:  # where chunks of all levels begin, as on a row of its own
        alone_BT = losses_of(config, params, texts[1:, at:])
        close(losses_BT[1:, at:], alone_BT)
    assert abs(losses_BT - whole_BT)[1, at:].max() > 1e-2


@SLOW
def test_gradients_are_finite_where_a_document_begins(texts):
    config = make(rule="adam")
    reset_BT = jnp.zeros((2, 13), bool).at[1, 6].set(True)
    _, grads = both(config, params_of(config), texts, reset_BT)
    assert jax.tree.all(jax.tree.map(lambda g: bool(jnp.isfinite(g).all()), grads))


@SLOW
def test_low_rank_learns_both_factors(texts):
    config = make(rank=2)
    params = params_of(config)
    losses_BT, grads = both(config, params, texts)
    full_BT = losses_of(make(), params_of(make()), texts)
    assert abs(losses_BT - full_BT)[:, :4].max() < 1e-4
    assert abs(losses_BT - full_BT)[:, 4:].max() > 1e-3
    assert all(
        grads["in_context"][f"left_period_1_{w}"].any() for w in ("w_in", "w_gate", "w_out")
    )


@SLOW
@pytest.mark.parametrize("rank", [None, 2])
def test_a_mesh_of_eight_equals_one_device(rank):
    config = make(rank=rank)
    params = params_of(config)
    tokens_BT = jax.random.randint(jax.random.key(3), (4, 14), 0, 16)
    reset_BT = jnp.zeros((4, 13), bool).at[1, 6].set(True)

    def loss(params, tokens_BT, reset_BT):
        parts = tokens_BT[:, :-1], tokens_BT[:, 1:], reset_BT
        return in_context_losses(config, params, *parts)[0].mean()

    expected, expected_grads = jax.jit(jax.value_and_grad(loss))(params, tokens_BT, reset_BT)
    with use_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))) as mesh:
        shardings, rows = param_shardings(param_shapes(config), mesh), batch_sharding(mesh)
        args = jax.device_put((params, tokens_BT, reset_BT), (shardings, rows, rows))
        step = jax.jit(jax.value_and_grad(loss), out_shardings=(None, shardings))
        value, grads = step(*args)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    close(jax.device_get(grads), jax.device_get(expected_grads), 10.0)


def test_only_what_is_asked_for_moves(texts):
    config = make(chunks=(4, 0))
    _, grads = both(config, params_of(config), texts)
    assert set(grads["in_context"]) == {"log_rate_period_1"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chunks": (4,)}, "name one chunk per level"),
        ({"chunks": (4, 6)}, "4 does not divide 6"),
        ({"chunks": (0, 0)}, "no level changes"),
        ({"blocks": 3}, "blocks is 3 and the model has 2"),
        ({"lr": -1.0}, "use 0 or more"),
        ({"rank": 0}, "rank is 0"),
        ({"loss": "l2"}, "loss is 'l2'"),
    ],
)
def test_mistakes_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        make(**changes)


@SLOW
def test_a_dropped_context_is_forgotten_by_the_mixers_alone(texts):
    config = make(blocks=2)
    params = params_of(config)
    drop_BT = jnp.zeros((2, 13), bool).at[:, 4].set(True)

    read = lambda texts: losses_of(config, params, texts, None, drop_BT)
    losses_BT, other_BT = read(texts), read(texts.at[:, :4].set((texts[:, :4] + 5) % 16))
    assert abs(losses_BT - other_BT)[:, 4:].max() > 1e-2  # the CMS remembers
    still = make(blocks=2, lr=0.0)
    losses_BT = losses_of(still, params, texts, None, drop_BT)
    close(losses_BT, frozen_losses(config, params, texts, drop_BT), 0.1)


@SLOW
@pytest.mark.parametrize("rank", [None, 2])
def test_a_loss_of_the_level_s_own_does_not_look_at_later_levels(rank, texts):
    config = make(loss="local", rank=rank, chunks=(4, 4))
    params = params_of(config)
    losses_BT, grads = both(config, params, texts)
    frozen_BT = frozen_losses(config, params, texts)
    assert abs(losses_BT - frozen_BT)[:, 4:].max() > 1e-3
    assert grads["in_context"]["view_period_1"].any()
    # the gradient of the first level's loss, by hand
    reader = Reader(config, params)
    fast = fresh_fast(config, params, 2)
    below = reader.read_below(texts[:, :4], None)
    none_BC = jnp.zeros((2, 4), bool)
    moved, _, _ = jax.jit(reader.chunk_gradient)(
        fast.in_sight(), below.y, None, texts[:, 1:5], none_BC, none_BC
    )
    slow = jax.tree.map(lambda w: w[-1], params["blocks"]["cms"]["period_1"])
    left = params["in_context"].get("left_period_1_w_out")

    def by_hand(added, row):
        matrix = added if left is None else left[0] @ added
        weights = slow | {"w_out": slow["w_out"] + matrix}
        y_TD = level_mlp(weights, below.y[row][None])[0]
        view = params["in_context"]["view_period_1"][0]
        wanted_TD = rms_norm(below.y[row], slow["norm_scale"], 1e-6) @ view
        return 0.5 * ((y_TD[:-1] - wanted_TD[1:]) ** 2).sum() / 4

    for row in range(2):
        zeros = jnp.zeros(moved["period_1"]["w_out"].shape[2:])
        close(moved["period_1"]["w_out"][0, row], jax.jit(jax.grad(by_hand))(zeros, row))
