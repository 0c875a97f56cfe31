"""A memory that remembers: 16 random tokens, a gap, the same tokens again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.config import CMSConfig, ModelConfig, SelfModifyingConfig
from hope_jax.models import LanguageModel, init_params

WORDS, GAP, BATCH, STEPS = 16, 8, 32, 2_000
CONFIG = ModelConfig(
    vocab_size=33,
    dim=64,
    depth=2,
    mixer=SelfModifyingConfig(
        heads=2, chunk=16, momentum="titans", hidden_norm="centred", hidden=64
    ),
    cms=CMSConfig(hidden=96),
)


def loss(params, key):
    """Nats per token of the repetition; ln 32 = 3.47 without memory."""
    words = jax.random.randint(key, (BATCH, WORDS), 0, 32)
    tokens = jnp.concatenate([words, jnp.full((BATCH, GAP), 32), words], axis=1)
    logits = LanguageModel(CONFIG).apply({"params": params}, tokens[:, :-1]).logits_BTW
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    return losses[:, -WORDS:].mean()


@pytest.mark.slow
@pytest.mark.long
def test_recall_is_solved():
    """Under 0.05 nats within 2,000 small steps, on sequences that were never seen."""
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 100, STEPS, 3e-4)
    tx = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.95, weight_decay=0.01)
    )

    @jax.jit
    def step(params, state, key):
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    params = init_params(CONFIG, jax.random.key(0))
    state, values = tx.init(params), []
    for i in range(STEPS):
        # every step draws new sequences, so the loss before an update is a held-out loss
        params, state, value = step(params, state, jax.random.fold_in(jax.random.key(1), i))
        values.append(value)
        if i % 50 == 49 and np.mean(np.asarray(values[-50:])) < 0.05:
            return
    pytest.fail(f"{np.mean(np.asarray(values[-50:])):.3f} nats after {STEPS} steps")
