"""Every mixer learns to copy, which takes a memory of what was read."""

import jax
import jax.numpy as jnp
import optax
import pytest
from mixer_cases import CASES

from hope_jax.config import CMSConfig, ModelConfig
from hope_jax.models import LanguageModel, init_params

COPY = 8  # two layers' convolutions of width 4 reach six tokens back


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_copying_is_learnt(name):
    """Eight random tokens, then the same: what comes again has to be remembered."""
    case, cms = CASES[name], CMSConfig(hidden=64)
    config = ModelConfig(vocab_size=9, dim=32, depth=2, mixer=case.config, cms=cms)
    tx = optax.adam(5e-3)

    def loss(params, key, writes):
        words = jax.random.randint(key, (16, COPY), 0, 8)
        tokens = jnp.concatenate([words, jnp.full((16, 1), 8), words], axis=1)
        output = LanguageModel(config).apply({"params": params}, tokens[:, :-1], writes=writes)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            output.logits_BTW, tokens[:, 1:]
        )
        return losses[:, -COPY:].mean()

    @jax.jit
    def train(params):
        def update(carry, key):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params, key, True)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        keys = jax.random.split(jax.random.key(1), case.copying_steps)
        (params, _), values = jax.lax.scan(update, (params, tx.init(params)), keys)
        with_writes, without = (loss(params, jax.random.key(2), w) for w in (True, False))
        return values, with_writes, without

    values, with_writes, without = train(init_params(config, jax.random.key(0)))
    assert values[0] > 1.9  # ln 8 = 2.08
    assert with_writes < 1.2
    assert not case.memory or case.attends or without > with_writes + 0.5
