"""Long sequences: outer gradients stay level, and a nudge to the memories dies out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.config import CMSConfig, ModelConfig, SelfModifyingConfig
from hope_jax.data import corpus
from hope_jax.models import LanguageModel, init_params

CONFIG = ModelConfig(
    vocab_size=256,
    dim=32,
    depth=2,
    mixer=SelfModifyingConfig(heads=1),
    cms=CMSConfig(hidden=64),
)
LENGTHS = (512, 2048, 8192)


@functools.cache
def all_plays():
    plays = b"".join(play.data for play in corpus.documents("train"))
    return np.frombuffer(plays, np.uint8)


def plays(key, batch, length):
    """Windows of the shipped plays, at random."""
    text = all_plays()
    starts = jax.random.randint(key, (batch,), 0, text.size - length - 1)
    return jnp.asarray(np.stack([text[s : s + length + 1] for s in starts]), jnp.int32)


def motifs(key, batch, length):
    """Noisy repeats of 16 random tokens, other ones in each row: to be copied in context."""
    motif, noise, where = jax.random.split(key, 3)
    tokens = jnp.tile(jax.random.randint(motif, (batch, 16), 0, 64), (1, -(-length // 16) + 1))
    tokens = tokens[:, : length + 1]
    random = jax.random.randint(noise, tokens.shape, 0, 64)
    return jnp.where(jax.random.uniform(where, tokens.shape) < 0.1, random, tokens)


def loss(params, tokens):
    logits = LanguageModel(CONFIG).apply({"params": params}, tokens[:, :-1]).logits_BTW
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


@functools.cache
def trained(text, steps):
    """Parameters after some steps on windows of 128 tokens at the default rate."""
    params = init_params(CONFIG, jax.random.key(0))
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-3))
    state = tx.init(params)

    @jax.jit
    def step(params, state, tokens):
        updates, state = tx.update(jax.grad(loss)(params, tokens), state, params)
        return optax.apply_updates(params, updates), state

    for i in range(steps):
        tokens = text(jax.random.fold_in(jax.random.key(1), i), 8, 128)
        params, state = step(params, state, tokens)
    return params


gradient_norm = jax.jit(lambda params, tokens: optax.tree.norm(jax.grad(loss)(params, tokens)))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("steps", [0, 200])
@pytest.mark.parametrize("text", [plays, motifs])
def test_gradient_norm_does_not_grow_with_length(text, steps):
    """512 to 8192 tokens within a factor of 3, at initialisation and after 200 steps."""
    params = trained(text, steps)
    norms = [float(gradient_norm(params, text(jax.random.key(9), 2, n))) for n in LENGTHS]
    assert np.isfinite(norms).all()
    assert max(norms) < 3 * min(norms), norms


@jax.jit
def read_on(params, state, tokens):
    return LanguageModel(CONFIG).apply({"params": params}, tokens, state).state


def distance(one, other):
    floats = lambda tree: [x for x in jax.tree.leaves(tree) if x.dtype == jnp.float32]
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, floats(one), floats(other))))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("text", [plays, motifs])
def test_a_nudge_to_the_memories_does_not_grow(text):
    """Memories that generate their own keys and rates are a loop; it must not be chaotic.

    Where it is, no two ways of computing the same text agree for long, and no gradient
    through the loop means anything.
    """
    params = trained(text, 200)
    tokens = text(jax.random.key(9), 1, 4096)
    state = read_on(params, None, tokens[:, :64])
    keys = iter(jax.random.split(jax.random.key(2), 100))
    nudge = lambda x: x + 1e-3 * jax.random.normal(next(keys), x.shape)
    other = jax.tree.map(lambda x: nudge(x) if x.dtype == jnp.float32 else x, state)
    before = distance(state, other)
    for start in range(64, 4096, 64):
        piece = tokens[:, start : start + 64]
        state, other = read_on(params, state, piece), read_on(params, other, piece)
    assert distance(state, other) < 3 * before
