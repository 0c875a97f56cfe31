"""A text told back from the vector at its last token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import AttentionConfig, CMSConfig, DataConfig, ModelConfig, TrainConfig
from hope_jax.config.tasks import CompressionConfig, MQARConfig
from hope_jax.data.tokenizers import SymbolTokenizer
from hope_jax.inference import generate
from hope_jax.layers.reconstruct import sinusoids
from hope_jax.models import LanguageModel, init_params

CONFIG = ModelConfig(
    vocab_size=8,
    dim=12,
    depth=1,
    mixer=AttentionConfig(heads=2),
    cms=CMSConfig(hidden=16),
    reconstruct=True,
)


@pytest.fixture(scope="module")
def params():
    return init_params(CONFIG, jax.random.key(0))


def test_scores_are_those_of_the_last_vector_and_the_place(params):
    plain = dataclasses.replace(CONFIG, reconstruct=False)
    tokens_BT = jax.random.randint(jax.random.key(1), (2, 6), 0, 8)
    found = LanguageModel(CONFIG).apply({"params": params}, tokens_BT).logits_BTW
    rest = {name: value for name, value in params.items() if name != "reconstruct"}
    table = np.asarray(params["embed"]["table"])
    _, sown = LanguageModel(plain).apply(
        {"params": rest}, tokens_BT, capture_intermediates=True, mutable=["intermediates"]
    )
    x_BD = np.asarray(sown["intermediates"]["final_norm"]["__call__"][0])[:, -1]
    w_in, w_out = (np.asarray(params["reconstruct"][n]) for n in ("w_in", "w_out"))
    for place, wave in enumerate(np.asarray(sinusoids(6, 12))):
        hidden = np.asarray(jax.nn.gelu(jnp.asarray((x_BD + wave) @ w_in)))
        np.testing.assert_allclose(
            found[:, place], hidden @ w_out @ table.T, rtol=1e-4, atol=1e-5
        )


def test_places_differ():
    waves = np.asarray(sinusoids(64, 12))
    distance = np.linalg.norm(waves[:, None] - waves[None], axis=-1)
    assert distance[~np.eye(64, dtype=bool)].min() > 0.1


def test_it_goes_with_its_task_alone():
    task = DataConfig(task=CompressionConfig())
    TrainConfig(model=CONFIG, data=task)
    for model, data in (
        (CONFIG, DataConfig(task=MQARConfig())),
        (CONFIG, DataConfig()),
        (ModelConfig(), task),
    ):
        with pytest.raises(ValueError, match="model.reconstruct is"):
            TrainConfig(model=model, data=data)


def test_it_cannot_write(params):
    with pytest.raises(ValueError, match="predicts no next one"):
        generate(LanguageModel(CONFIG), params, SymbolTokenizer("abcdefgh"), "a", tokens=1)
