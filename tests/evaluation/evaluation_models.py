"""Small models with weights that differ, and a scorer of each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    InContextConfig,
    LinearAttentionConfig,
    ModelConfig,
    SelfModifyingConfig,
)
from hope_jax.data import ByteTokenizer
from hope_jax.evaluation import Scorer
from hope_jax.inference.learning import Mode
from hope_jax.inference.limits import NO_LIMITS
from hope_jax.models import LanguageModel, init_params

LEARNS = CMSConfig(
    periods=(1, 4),
    in_context=InContextConfig(chunks=(32, 64), blocks=1, lr=0.5, loss="next_token"),
)
MODELS = {
    "attention": ModelConfig(
        dim=16, depth=1, mixer=AttentionConfig(heads=2), init_std=0.3, vocab_size=257
    ),
    "linear": ModelConfig(
        dim=16, depth=1, mixer=LinearAttentionConfig(heads=2, chunk=16), init_std=0.3
    ),
    "self_modifying": ModelConfig(
        dim=16,
        depth=1,
        mixer=SelfModifyingConfig(heads=2, chunk=16, rate_hidden=4),
        init_std=0.3,
    ),
    "learns": ModelConfig(
        dim=16, depth=1, mixer=AttentionConfig(heads=2), init_std=0.3, cms=LEARNS
    ),
}
MODE = Mode(limits=NO_LIMITS)  # to a model that is not trained, every text is noise


@functools.cache
def make_scorer(name: str, mode: Mode = MODE) -> Scorer:
    config = MODELS[name]
    params = init_params(config, jax.random.key(0))
    tokenizer = ByteTokenizer(end=config.vocab_size == 257)
    return Scorer(LanguageModel(config), params, tokenizer, batch=4, mode=mode, sizes=(64,))


class Counter:
    """Progress that is only counted."""

    total = done = 0

    def start(self, total):
        self.total += total

    def advance(self, count):
        self.done += count


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, params, ids_BT):
    return model.apply({"params": params}, ids_BT).logits_BTW


def plain_log_probabilities(scorer, ids_T, length=128):
    """By one forward pass over the whole row: `[T, W]`, before each of its tokens."""
    ids_BT = jnp.asarray(np.pad(ids_T, (0, length - len(ids_T))))[None]
    logits_TW = np.asarray(_forward(scorer.model, scorer.params, ids_BT)[0], np.float64)
    even_1W = np.zeros((1, logits_TW.shape[1]))
    expected_TW = np.concatenate([even_1W, logits_TW])[: len(ids_T)]
    return expected_TW - np.log(np.exp(expected_TW).sum(axis=1, keepdims=True))
