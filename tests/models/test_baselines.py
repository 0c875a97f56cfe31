"""Baselines with a state that never grows: what each has to give the language model."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

from hope_jax.cli.describe import describe
from hope_jax.config import (
    CMSConfig,
    ModelConfig,
    SlidingWindowConfig,
    TrainConfig,
    TTTLinearConfig,
    TTTMLPConfig,
)
from hope_jax.models import (
    LanguageModel,
    abstract_state,
    count_params,
    init_params,
    match_params,
    next_token_loss,
    param_shapes,
)
from hope_jax.optim.model_matrices import model_matrices

MIXERS = {
    "sliding_window": SlidingWindowConfig(heads=2, window=6, block=4),
    "ttt_linear": TTTLinearConfig(heads=2, chunk=4),
    "ttt_mlp": TTTMLPConfig(heads=2, chunk=4),
}
# by name: what is no matrix of a layer's width or of its memory
_TTT = {"b_rate", "w_rate", "step_offset", "conv_query", "conv_key", "memory_in_bias"}
_TTT |= {f"{norm}_norm_{part}" for norm in ("read", "memory") for part in ("scale", "bias")}
NO_MATRIX = {
    "sliding_window": set(),
    "ttt_linear": _TTT,
    "ttt_mlp": _TTT | {"memory_out_bias"},
}


@pytest.fixture(params=MIXERS)
def config(request):
    cms = CMSConfig(hidden=32)
    return ModelConfig(vocab_size=11, dim=16, depth=2, mixer=MIXERS[request.param], cms=cms)


def test_training_lowers_the_loss(config):
    """Every third token repeats, which no token alone can tell."""
    model, params = LanguageModel(config), init_params(config, jax.random.key(0))
    optimizer = optax.adam(1e-2)

    def loss(params, tokens_BT):
        logits_BTW = model.apply({"params": params}, tokens_BT).logits_BTW
        return next_token_loss(logits_BTW[:, 2:-1], tokens_BT[:, 3:])

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            tokens_BT = jnp.tile(jax.random.randint(key, (8, 3), 0, 11), (1, 6))
            value, grads = jax.value_and_grad(loss)(params, tokens_BT)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        keys = jax.random.split(jax.random.key(1), 100)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[1]

    losses = train(params)
    assert losses[-10:].mean() < 0.7 * losses[:10].mean()


def test_the_state_has_one_size(config):
    shapes = [abstract_state(config, batch=2, length=length) for length in (0, 1, 5, 40)]
    assert all(shape == shapes[0] for shape in shapes)


def test_parameters_can_be_matched_and_described(config):
    target = 3 * count_params(config).total
    assert abs(count_params(match_params(config, target)).total - target) < 0.01 * target
    sections = describe(dataclasses.replace(TrainConfig(), model=config))
    state = next(s for s in sections if s.title.startswith("fast state"))
    assert "the same after any number of tokens" in state.note


def test_rules_for_matrices_find_the_mixers(config):
    paths = [path for path in param_shapes(config) if "/mixer/" in path]
    dims = model_matrices({path: 0 for path in paths})
    no_matrix = {path.split("/")[-1] for path in paths if dims[path] is None}
    assert no_matrix == NO_MATRIX[config.mixer.type]
    assert len(paths) > len(no_matrix)
