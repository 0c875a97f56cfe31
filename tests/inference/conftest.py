"""A small model of each mixer, built once."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from hope_jax.config import AttentionConfig, ModelConfig
from hope_jax.data import ByteTokenizer
from hope_jax.models import LanguageModel, init_params

MIXERS = {
    "attention": AttentionConfig(heads=2),
}


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
        ids_BT = jnp.asarray(self.tokenizer.encode(text))[None]
        out = jax.jit(self.model.apply)({"params": self.params}, ids_BT)
        nothing_BW = jnp.zeros((1, self.model.config.vocab_size))
        return jnp.concatenate([nothing_BW, out.logits_BTW[0]])


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
