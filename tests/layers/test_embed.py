"""A padded vocabulary is the vocabulary, on one device and in parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import AttentionConfig, CMSConfig, MeshConfig, ModelConfig
from hope_jax.inference import fresh
from hope_jax.models import (
    LanguageModel,
    count_params,
    init_params,
    next_token_loss,
    param_shapes,
)
from hope_jax.parallel import batch_sharding, make_mesh, param_shardings, use_mesh

WORDS = 61
PLAIN = ModelConfig(
    vocab_size=WORDS, dim=16, depth=1, mixer=AttentionConfig(heads=4), cms=CMSConfig(hidden=16)
)
PADDED = ModelConfig(
    vocab_size=WORDS,
    vocab_multiple=16,
    dim=16,
    depth=1,
    mixer=AttentionConfig(heads=4),
    cms=CMSConfig(hidden=16),
)


@pytest.fixture(scope="module")
def tokens_BT():
    return jax.random.randint(jax.random.key(1), (8, 9), 0, WORDS)


def loss_of(config):
    model = LanguageModel(config)

    def loss(params, tokens_BT):
        logits_BTW = model.apply({"params": params}, tokens_BT).logits_BTW
        return next_token_loss(logits_BTW[:, :-1], tokens_BT[:, 1:])

    return jax.jit(jax.value_and_grad(loss))


def test_padding_changes_neither_loss_nor_gradient(tokens_BT):
    plain, padded = (init_params(config, jax.random.key(0)) for config in (PLAIN, PADDED))
    table_WD = padded["embed"]["table"]
    assert table_WD.shape == (64, 16) and not table_WD[WORDS:].any()
    np.testing.assert_array_equal(table_WD[:WORDS], plain["embed"]["table"])
    loss, grads = loss_of(PLAIN)(plain, tokens_BT)
    padded_loss, padded_grads = loss_of(PADDED)(padded, tokens_BT)
    np.testing.assert_allclose(padded_loss, loss, rtol=1e-6)
    assert not padded_grads["embed"]["table"][WORDS:].any()
    padded_grads["embed"]["table"] = padded_grads["embed"]["table"][:WORDS]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), padded_grads, grads
    )


def test_a_padded_vocabulary_in_parts_equals_the_whole(tokens_BT):
    params = init_params(PADDED, jax.random.key(0))
    loss, grads = loss_of(PADDED)(params, tokens_BT)
    with use_mesh(make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))) as mesh:
        places = param_shardings(param_shapes(PADDED), mesh)
        args = jax.device_put((params, tokens_BT), (places, batch_sharding(mesh)))
        assert args[0]["embed"]["table"].sharding.shard_shape((64, 16)) == (16, 8)
        parts_loss, parts_grads = loss_of(PADDED)(*args)
    np.testing.assert_allclose(parts_loss, loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.device_get(parts_grads),
        jax.device_get(grads),
    )


def test_without_padding_the_message_says_how_to_pad():
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    with pytest.raises(ValueError, match="61 along 'vocab' .* model.vocab_multiple=512"):
        param_shardings(param_shapes(PLAIN), mesh)


def test_ids_that_pad_are_no_tokens():
    model, params = LanguageModel(PADDED), init_params(PADDED, jax.random.key(0))
    logits_BTW = model.apply({"params": params}, jnp.array([[3], [WORDS]])).logits_BTW
    assert np.isneginf(logits_BTW[0, 0, WORDS:]).all()
    assert np.isfinite(logits_BTW[0, 0, :WORDS]).all()
    assert np.isnan(logits_BTW[1, 0, :WORDS]).all()
    even_W = jax.nn.softmax(fresh(model, params).logits_BW[0])
    np.testing.assert_allclose(even_W[:WORDS], 1 / WORDS, rtol=1e-6)


def test_a_head_of_its_own(tokens_BT):
    """It predicts, the embedding reads, and each has the gradient of its part."""
    own = dataclasses.replace(PADDED, tied_head=False)
    params = init_params(own, jax.random.key(0))
    tied = init_params(PADDED, jax.random.key(0))
    assert params["embed"]["head"].shape == (64, 16)
    assert not params["embed"]["head"][WORDS:].any()
    assert (params["embed"]["head"] != params["embed"]["table"])[:WORDS].all()
    params["embed"]["head"] = params["embed"]["table"]
    loss, grads = loss_of(own)(params, tokens_BT)
    tied_loss, tied_grads = loss_of(PADDED)(tied, tokens_BT)
    np.testing.assert_allclose(loss, tied_loss, rtol=1e-6)
    both = grads["embed"].pop("head") + grads["embed"]["table"]
    np.testing.assert_allclose(both, tied_grads["embed"]["table"], rtol=1e-4, atol=1e-7)
    assert count_params(own).total == count_params(PADDED).total + 64 * 16
