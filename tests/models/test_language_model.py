"""The language model: what has to hold around every sequence mixer."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    GatedDeltaNetConfig,
    ModelConfig,
    SelfModifyingConfig,
    TTTMLPConfig,
)
from hope_jax.models import LanguageModel, init_params, next_token_losses

MIXERS = {  # one of each kind; layers/test_every_mixer.py has them all
    "attention": AttentionConfig(heads=2, block=4),
    "self_modifying": SelfModifyingConfig(heads=2, chunk=4, rate_hidden=4),
    "gated_delta_net": GatedDeltaNetConfig(heads=2, chunk=4),
    "ttt_mlp": TTTMLPConfig(heads=2, chunk=4, hidden=12, backbone="transformer"),
}
TIME = 12


def config_of(mixer, **changes):
    return ModelConfig(
        vocab_size=37, dim=16, depth=2, mixer=MIXERS[mixer], cms=CMSConfig((1, 4)), **changes
    )


@functools.cache
def apply_of(config):
    """Compiled `(params, tokens, state, reset) -> Output`; `.traces` counts compilations."""
    model, traces = LanguageModel(config), []

    @jax.jit
    def apply(params, *args):
        traces.append(args)
        return model.apply({"params": params}, *args)

    def counted(*args):
        return apply(*args)

    counted.traces = traces
    return counted


@functools.cache
def params_of(mixer):
    return init_params(config_of(mixer), jax.random.key(0))


@functools.cache
def score_and_grads_of(config):
    """Compiled `(params, tokens, reset, weight) -> (weighted scores of the last id, grads)`.

    No input has the last id, so the gradient of the other rows of the table, which is
    also the head, comes through the reading alone.
    """
    model = LanguageModel(config)

    def score(params, tokens_BT, reset_BT, weight_BT):
        logits_BTW = model.apply({"params": params}, tokens_BT, None, reset_BT).logits_BTW
        return jnp.sum(weight_BT * logits_BTW[..., -1])

    return jax.jit(jax.value_and_grad(score))


@pytest.fixture(scope="module", params=MIXERS)
def mixer(request):
    return request.param


@pytest.fixture(scope="module")
def tokens_BT():
    return jax.random.randint(jax.random.key(1), (2, TIME), 0, 36)


@pytest.fixture(scope="module")
def reset_BT():
    return (
        jnp.zeros((2, TIME), bool).at[:, 0].set(True).at[0, 5].set(True).at[1, 8:10].set(True)
    )


def test_pieces_equal_one_read(mixer, tokens_BT, reset_BT):
    """Any pieces, none and single tokens among them, equal the whole read."""
    apply, params = apply_of(config_of(mixer)), params_of(mixer)
    whole = apply(params, tokens_BT, None, reset_BT)
    pieces, state, start = [], None, 0
    for length in (0, 5, 1, 1, 5):  # few lengths: each is compiled
        stop = start + length
        out = apply(params, tokens_BT[:, start:stop], state, reset_BT[:, start:stop])
        assert out.logits_BTW.shape == (2, length, 37)
        pieces.append(out.logits_BTW)
        state, start = out.state, stop
    assert start == TIME
    np.testing.assert_allclose(
        jnp.concatenate(pieces, 1), whole.logits_BTW, rtol=1e-5, atol=1e-5
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, whole.state
    )


def test_packed_documents_do_not_leak(mixer, tokens_BT, reset_BT):
    """What stood before a reset changes nothing after it."""
    apply, params = apply_of(config_of(mixer)), params_of(mixer)
    last_B = TIME - 1 - np.argmax(reset_BT[:, ::-1], axis=1)  # 5 and 9
    before_BT = jnp.arange(TIME)[None] < last_B[:, None]
    other_BT = jnp.where(before_BT, 35 - tokens_BT, tokens_BT)
    logits_BTW = apply(params, tokens_BT, None, reset_BT).logits_BTW
    other_BTW = apply(params, other_BT, None, reset_BT).logits_BTW
    difference_BT = jnp.abs(logits_BTW - other_BTW).max(-1)
    assert np.all(difference_BT[before_BT] > 0)
    np.testing.assert_allclose(difference_BT[~before_BT], 0, atol=1e-6)


def test_causality_by_gradient(mixer):
    """An output depends on every token up to its time and on none after."""
    order_BT = jnp.broadcast_to(jnp.arange(TIME), (2, TIME))
    weight_BT = jnp.zeros((2, TIME)).at[:, 7].set(1)
    never_BT = jnp.zeros((2, TIME), bool)
    score_and_grads = score_and_grads_of(config_of(mixer))
    _, grads = score_and_grads(params_of(mixer), order_BT, never_BT, weight_BT)
    size_T = np.abs(grads["embed"]["table"]).sum(-1)[:TIME]
    assert np.all(size_T[:8] > 0)
    assert not np.any(size_T[8:])


def test_every_parameter_gets_a_gradient(mixer, tokens_BT, reset_BT):
    score_and_grads = score_and_grads_of(config_of(mixer))
    _, grads = score_and_grads(params_of(mixer), tokens_BT, reset_BT, jnp.ones((2, TIME)))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all(), path
        assert np.abs(grad).max() > 0, path


def test_scan_equals_unrolled_and_remat(mixer, tokens_BT, reset_BT):
    base = config_of(mixer)
    other = dataclasses.replace(base, scan_layers=False, remat="block")
    args = params_of(mixer), tokens_BT, None, reset_BT
    np.testing.assert_allclose(
        apply_of(other)(*args).logits_BTW,
        apply_of(base)(*args).logits_BTW,
        rtol=1e-5,
        atol=1e-6,
    )


def test_scan_equals_unrolled_and_remat_in_gradient(tokens_BT, reset_BT):
    """Once: the wrapper around the blocks does not look at the mixer."""
    base = config_of("attention")
    args = params_of("attention"), tokens_BT, reset_BT, jnp.ones((2, TIME))
    _, expected = score_and_grads_of(base)(*args)
    for changes in ({"scan_layers": False}, {"remat": "block"}):
        _, grads = score_and_grads_of(dataclasses.replace(base, **changes))(*args)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, expected
        )


def test_first_loss_is_that_of_a_uniform_guess(mixer, tokens_BT, reset_BT):
    """In bfloat16 too, where parameters stay float32 and scores come out as float32."""
    params = params_of(mixer)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    scores = []
    for dtype in ("float32", "bfloat16"):
        out = apply_of(config_of(mixer, dtype=dtype))(params, tokens_BT, None, reset_BT)
        assert out.logits_BTW.dtype == jnp.float32
        loss = next_token_losses(out.logits_BTW[:, :-1], tokens_BT[:, 1:]).mean()
        assert abs(loss - math.log(37)) < 0.03 * math.log(37)
        scores.append(out.logits_BTW)
    # Where a gated delta rule reads next to nothing, normalising it makes roundings large.
    worst = 0.15 if mixer == "gated_delta_net" else 0.03
    np.testing.assert_allclose(*scores, atol=worst)
    assert np.abs(scores[0] - scores[1]).mean() < 0.01


def test_a_second_call_does_not_compile_again(mixer, tokens_BT, reset_BT):
    apply, params = apply_of(config_of(mixer)), params_of(mixer)
    apply(params, tokens_BT, None, reset_BT)
    before = len(apply.traces)
    apply(jax.tree.map(lambda p: p + 1, params), tokens_BT + 0, None, ~reset_BT)
    assert len(apply.traces) == before
