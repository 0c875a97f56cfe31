"""The language model: what has to hold around every sequence mixer."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import AttentionConfig, CMSConfig, ModelConfig
from hope_jax.models import LanguageModel, init_params, next_token_losses

MIXERS = {
    "attention": AttentionConfig(heads=2, block=4),
}
TIME = 12


def config_of(mixer, **changes):
    return ModelConfig(
        vocab_size=37, dim=16, depth=2, mixer=MIXERS[mixer], cms=CMSConfig((1, 4)), **changes
    )


@functools.cache
def apply_of(config):
    """Compiled `(params, tokens, state, reset) -> Output`."""
    model = LanguageModel(config)
    return jax.jit(lambda params, *args: model.apply({"params": params}, *args))


@functools.cache
def params_of(mixer):
    return init_params(config_of(mixer), jax.random.key(0))


@functools.cache
def loss_and_grads_of(config):
    model = LanguageModel(config)

    def loss(params, tokens_BT, reset_BT):
        logits_BTW = model.apply({"params": params}, tokens_BT, None, reset_BT).logits_BTW
        return next_token_losses(logits_BTW[:, :-1], tokens_BT[:, 1:]).mean()

    return jax.jit(jax.value_and_grad(loss))


@pytest.fixture(scope="module", params=MIXERS)
def mixer(request):
    return request.param


@pytest.fixture(scope="module")
def tokens_BT():
    return jax.random.randint(jax.random.key(1), (2, TIME), 0, 37)


@pytest.fixture(scope="module")
def reset_BT():
    return (
        jnp.zeros((2, TIME), bool).at[:, 0].set(True).at[0, 5].set(True).at[1, 8:10].set(True)
    )


def test_pieces_equal_one_read(mixer, tokens_BT, reset_BT):
    """Prefill and then any pieces, single tokens and none among them, equal the whole read."""
    apply, params = apply_of(config_of(mixer)), params_of(mixer)
    whole = apply(params, tokens_BT, None, reset_BT)
    pieces, state, start = [], None, 0
    for length in (5, 0, 1, 6):
        stop = start + length
        out = apply(params, tokens_BT[:, start:stop], state, reset_BT[:, start:stop])
        pieces.append(out.logits_BTW)
        state, start = out.state, stop
    assert start == TIME
    np.testing.assert_allclose(
        jnp.concatenate(pieces, 1), whole.logits_BTW, rtol=1e-5, atol=2e-6
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), state, whole.state
    )


def test_no_tokens_give_the_initial_state(mixer, tokens_BT, reset_BT):
    apply, params = apply_of(config_of(mixer)), params_of(mixer)
    empty = apply(params, tokens_BT[:, :0], None, reset_BT[:, :0])
    assert empty.logits_BTW.shape == (2, 0, 37)
    after = apply(params, tokens_BT[:, :5], empty.state, reset_BT[:, :5])
    fresh = apply(params, tokens_BT[:, :5], None, reset_BT[:, :5])
    np.testing.assert_allclose(after.logits_BTW, fresh.logits_BTW, rtol=1e-6, atol=1e-6)


def test_a_state_has_layers_then_rows_in_front(mixer, tokens_BT):
    """Rows of a state can be taken out, joined and mapped over."""
    state = apply_of(config_of(mixer))(params_of(mixer), tokens_BT[:, :5], None, None).state
    assert all(leaf.shape[:2] == (2, 2) for leaf in jax.tree.leaves(state))


def test_packed_documents_do_not_leak(mixer, tokens_BT, reset_BT):
    """After a reset a row reads as if the document stood alone."""
    apply, params = apply_of(config_of(mixer)), params_of(mixer)
    packed_BTW = apply(params, tokens_BT, None, reset_BT).logits_BTW
    for row, start in ((0, 5), (1, 9)):
        document_BT = jnp.roll(tokens_BT[row : row + 1], -start, axis=1).repeat(2, axis=0)
        alone_BTW = apply(params, document_BT, None, jnp.zeros_like(reset_BT)).logits_BTW
        np.testing.assert_allclose(
            packed_BTW[row, start:], alone_BTW[0, : TIME - start], rtol=1e-5, atol=2e-6
        )


def test_causality_by_gradient(mixer, tokens_BT):
    """An output depends on every token up to its time and on none after.

    Every position reads a table row of its own, and the score that is differentiated
    belongs to one more row, so each token row's gradient comes through the reading alone.
    """
    config, at = dataclasses.replace(config_of(mixer), vocab_size=TIME + 1), 7
    params = init_params(config, jax.random.key(0))
    order_BT = jnp.arange(TIME)[None]

    def score(table_WD):
        changed = {**params, "embed": {"table": table_WD}}
        return apply_of(config)(changed, order_BT, None, None).logits_BTW[0, at, TIME]

    size_T = np.abs(jax.grad(score)(params["embed"]["table"])).sum(-1)[:TIME]
    assert np.all(size_T[: at + 1] > 0)
    assert not np.any(size_T[at + 1 :])


def test_scan_equals_unrolled_and_remat(mixer, tokens_BT, reset_BT):
    base = config_of(mixer)
    value, grads = loss_and_grads_of(base)(params_of(mixer), tokens_BT, reset_BT)
    for changes in ({"scan_layers": False}, {"remat": "block"}):
        other = dataclasses.replace(base, **changes)
        other_value, other_grads = loss_and_grads_of(other)(
            params_of(mixer), tokens_BT, reset_BT
        )
        np.testing.assert_allclose(other_value, value, rtol=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            other_grads,
            grads,
        )


def test_every_parameter_gets_a_gradient(mixer, tokens_BT, reset_BT):
    _, grads = loss_and_grads_of(config_of(mixer))(params_of(mixer), tokens_BT, reset_BT)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all(), path
        assert np.abs(grad).max() > 0, path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_first_loss_is_that_of_a_uniform_guess(mixer, dtype):
    config = ModelConfig(vocab_size=256, dim=64, depth=2, mixer=MIXERS[mixer], dtype=dtype)
    tokens_BT = jax.random.randint(jax.random.key(2), (4, 64), 0, 256)
    params = init_params(config, jax.random.key(0))
    out = apply_of(config)(params, tokens_BT, None, None)
    assert out.logits_BTW.dtype == jnp.float32
    loss = next_token_losses(out.logits_BTW[:, :-1], tokens_BT[:, 1:]).mean()
    assert abs(loss - math.log(256)) < 0.03 * math.log(256)


def test_bfloat16_keeps_parameters_in_float32_and_nears_float32(mixer, tokens_BT, reset_BT):
    params = params_of(mixer)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    low = apply_of(config_of(mixer, dtype="bfloat16"))(params, tokens_BT, None, reset_BT)
    full = apply_of(config_of(mixer))(params, tokens_BT, None, reset_BT)
    np.testing.assert_allclose(low.logits_BTW, full.logits_BTW, atol=0.05)


def test_a_second_call_does_not_compile_again(mixer, tokens_BT, reset_BT):
    model, traces = LanguageModel(config_of(mixer)), []

    @jax.jit
    def apply(params, tokens, state, reset):
        traces.append(1)
        return model.apply({"params": params}, tokens, state, reset)

    first = apply(params_of(mixer), tokens_BT, None, reset_BT)
    apply(jax.tree.map(lambda p: p + 1, params_of(mixer)), tokens_BT + 0, None, ~reset_BT)
    assert len(traces) == 1
    assert first.logits_BTW.shape == (2, TIME, 37)
