"""Writing text: the same as the full forward pass, reproducible, and cut where asked."""

import dataclasses

import jax
import numpy as np
import pytest

from hope_jax.config import AttentionConfig, ModelConfig
from hope_jax.data import ByteTokenizer
from hope_jax.inference import fresh, generate, read
from hope_jax.models import LanguageModel, init_params


def test_greedy_text_is_the_argmax_of_the_full_forward_pass(reader, text):
    out = generate(*reader.parts, text, tokens=20, temperature=0)
    logits_TW = reader.logits(text + bytes(out.ids.tolist()))
    assert out.ids.tolist() == logits_TW[len(text) : -1].argmax(-1).tolist()
    np.testing.assert_allclose(out.state.logits_BW[0], logits_TW[-1], atol=2e-5)


def test_text_does_not_depend_on_how_it_was_cut(reader, text):
    """One prompt, or a state and the rest of it; many tokens, or the first of them."""
    out = generate(*reader.parts, text, tokens=40, seed=3)
    state = read(*reader.parts, text[:77]).state
    assert generate(*reader.parts, text[77:], tokens=40, seed=3, state=state).text == out.text
    short = generate(*reader.parts, text, tokens=17, seed=3)
    assert short.ids.tolist() == out.ids[:17].tolist()


def test_seeds(reader):
    texts = [generate(*reader.parts, "a", tokens=24, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_pieces_that_are_shown_join_to_the_text(reader):
    pieces = []
    out = generate(*reader.parts, "a", tokens=24, on_text=pieces.append)
    assert "".join(pieces) == out.text and len(pieces) > 1
    assert out.text == bytes(out.ids.tolist()).decode("utf-8", errors="replace")


def test_writing_goes_on_after_the_text(reader):
    """The state that comes back has read its own words."""
    out = generate(*reader.parts, "a", tokens=20)
    again = read(*reader.parts, bytes([97, *out.ids.tolist()]))
    np.testing.assert_allclose(out.state.logits_BW, again.state.logits_BW, atol=2e-5)


def test_nothing_to_write(reader, text):
    out = generate(*reader.parts, text, tokens=0)
    assert out.text == "" and out.ids.shape == (0,)


@pytest.mark.parametrize(
    ("prompt", "settings", "said"),
    [
        ("", {}, "the prompt '' gives no token"),
        ("a", {"tokens": -1}, "tokens is -1"),
        ("a", {"temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_settings_that_make_no_sense(reader, prompt, settings, said):
    with pytest.raises(ValueError, match=said):
        generate(*reader.parts, prompt, **settings)


@pytest.fixture(scope="module")
def ending():
    """A tokenizer with an end-of-document token, and a model with more ids than it has."""
    config = ModelConfig(vocab_size=384, dim=8, depth=1, mixer=AttentionConfig(heads=1))
    return (
        LanguageModel(config),
        init_params(config, jax.random.key(0)),
        ByteTokenizer(end=True),
    )


def test_end_of_document_stops_the_text(ending):
    model, params, tokenizer = ending
    stream = fresh(model, params)
    certain = dataclasses.replace(
        stream, logits_BW=stream.logits_BW.at[:, tokenizer.end_id].set(100.0)
    )
    out = generate(*ending, "", tokens=9, state=certain)
    assert out.text == "" and out.ids.tolist() == [tokenizer.end_id]


def test_ids_that_only_pad_the_vocabulary_are_never_drawn(ending):
    ids = generate(*ending, "a", tokens=64).ids
    assert ids.max() <= 256 and len(set(ids.tolist())) > 16
