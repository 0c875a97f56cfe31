"""A small model of each mixer, built once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from hope_jax.config import AttentionConfig, ModelConfig, SelfModifyingConfig
from hope_jax.data import ByteTokenizer
from hope_jax.models import LanguageModel, init_params

MIXERS = {
    "attention": AttentionConfig(heads=2),
    "self_modifying": SelfModifyingConfig(heads=2, chunk=16, rate_hidden=4),
}

LENGTH = 192  # full forward passes are padded to this, so that one is compiled


@dataclasses.dataclass(frozen=True)
class Reader:
    """What `read` and `generate` need."""

    model: LanguageModel
    params: dict
    tokenizer: ByteTokenizer

    @property
    def parts(self):
        return self.model, self.params, self.tokenizer

    def logits(self, text: bytes):
        """Scores of the next token after each prefix of `text`, by one full forward pass."""
        ids_BT = jnp.asarray(self.tokenizer.encode(text.ljust(LENGTH)))[None]
        logits_BTW = _forward(self.model, self.params, ids_BT)
        nothing_1W = jnp.zeros((1, self.model.config.vocab_size))
        return jnp.concatenate([nothing_1W, logits_BTW[0, : len(text)]])


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, params, ids_BT):
    return model.apply({"params": params}, ids_BT).logits_BTW


@pytest.fixture(scope="session", params=MIXERS)
def reader(request) -> Reader:
    config = ModelConfig(dim=32, depth=2, mixer=MIXERS[request.param], init_std=0.2)
    return Reader(
        LanguageModel(config), init_params(config, jax.random.key(0)), ByteTokenizer()
    )


@pytest.fixture(scope="session")
def text() -> bytes:
    """150 bytes: pieces, and a remainder that goes token by token."""
    return (b"The quality of mercy is not strained; it droppeth as the gentle rain. " * 3)[:150]
