"""Reading in pieces and token by token is one full forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.data import ByteTokenizer
from hope_jax.inference import fresh, read
from hope_jax.inference.apart import params_apart
from hope_jax.inference.stream import (
    STEPS,
    compact,
    layers_apart,
    layers_together,
    open_stream,
    step_tokens,
)
from hope_jax.models import next_token_losses


def test_losses_are_those_of_a_full_forward_pass(reader, text):
    reading = read(*reader.parts, text)
    logits_TW = reader.logits(text)
    expected_T = next_token_losses(logits_TW[:-1], jnp.asarray(list(text)))
    np.testing.assert_allclose(reading.loss_T, expected_T, atol=2e-5)
    np.testing.assert_allclose(reading.state.logits_BW[0], logits_TW[-1], atol=2e-5)
    np.testing.assert_allclose(reading.loss_T[0], np.log(256), rtol=1e-6)


@pytest.mark.parametrize("cut", [0, 1, 23, 64, 149])
def test_reading_goes_on_from_any_place(reader, text, cut):
    first = read(*reader.parts, text[:cut])
    second = read(*reader.parts, text[cut:], first.state)
    whole = read(*reader.parts, text)
    joined_T = np.concatenate([first.loss_T, second.loss_T])
    np.testing.assert_allclose(joined_T, whole.loss_T, atol=2e-5)
    for a, b in zip(
        jax.tree.leaves(compact(second.state)),
        jax.tree.leaves(compact(whole.state)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_state_is_not_used_up(reader, text):
    state = read(*reader.parts, text[:70]).state
    losses = [read(*reader.parts, text[70:], state).loss_T for _ in range(2)]
    np.testing.assert_array_equal(*losses)


def test_memory_does_not_grow(reader, text):
    sizes = [read(*reader.parts, text * repeat).state.nbytes for repeat in (1, 2)]
    assert sizes[0] == sizes[1]  # a key-value cache grows too, but not within its room


def test_another_length_compiles_nothing(reader, text):
    read(*reader.parts, text)
    before = step_tokens._cache_size()
    read(*reader.parts, text[:-3])
    assert step_tokens._cache_size() == before


def test_reading_without_writing(reader, text):
    """Memories that may not write know nothing of the text; attention has none."""
    text = text[:STEPS]
    kept = read(*reader.parts, text).loss_T
    frozen = read(*reader.parts, text, writes=False).loss_T
    same = np.allclose(kept, frozen, atol=1e-4)
    assert same == (reader.model.config.mixer.type == "attention")


def test_tokenizer_of_another_model_is_refused(reader):
    with pytest.raises(ValueError, match="257 ids and the model 256"):
        read(reader.model, reader.params, ByteTokenizer(end=True), "text")


def test_given_tokens_are_read_and_not_drawn(reader, text):
    stream = open_stream(reader.model, reader.params, STEPS)
    stream = layers_apart(reader.model, stream)
    keys_B = jax.random.split(jax.random.key(0), 1)
    given_BN = jnp.asarray(list(text[:STEPS]), jnp.int32)[None]
    apart = params_apart(reader.params)
    steps = step_tokens(reader.model, apart, stream, given_BN, 5, 9, keys_B, vocab=256)
    ids = np.asarray(steps.ids_BN)[0].tolist()
    assert ids[:5] == list(text[:5]) and int(steps.count) == 9
    assert ids[9:] == list(text[9:STEPS])  # untouched


def test_layers_go_apart_and_together(reader, text):
    stream = read(*reader.parts, text).state
    again = layers_together(layers_apart(reader.model, stream))
    jax.tree.map(np.testing.assert_array_equal, again, stream)


def test_a_fresh_stream_expects_everything_alike(reader):
    stream = fresh(reader.model, reader.params, batch=3)
    assert stream.batch == 3
    np.testing.assert_array_equal(stream.logits_BW, np.zeros((3, 256)))
