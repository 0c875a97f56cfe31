"""A small checkpoint that learns while it reads."""

import jax
import pytest

from hope_jax.checkpoint.load import Loaded
from hope_jax.config import (
    CMSConfig,
    DataConfig,
    GatedDeltaNetConfig,
    InContextConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
)
from hope_jax.data import ByteTokenizer
from hope_jax.models import LanguageModel, init_params


def made(tmp_path, seed=0, mixer=None, **how):
    how = {"chunks": (8, 0), "lr": 0.5, "clip": 1.0} | how
    cms = CMSConfig((1, 4), 32, in_context=InContextConfig(**how))
    mixer = mixer or GatedDeltaNetConfig(heads=2, chunk=8)
    model = ModelConfig(dim=16, depth=2, mixer=mixer, cms=cms)
    config = TrainConfig(model=model, data=DataConfig(), optim=OptimConfig(lr=3e-2))
    params = init_params(model, jax.random.key(seed))
    tmp_path.mkdir(exist_ok=True)
    return Loaded(config, LanguageModel(model), params, ByteTokenizer(), 0, {}, tmp_path)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return made(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    return made(tmp_path_factory.mktemp("another"), seed=1)


@pytest.fixture(scope="session")
def in_step(tmp_path_factory):
    """Its mixer keeps one place in its chunk for all rows."""
    mixer = SelfModifyingConfig(heads=2, chunk=8, rate_hidden=4)
    return made(tmp_path_factory.mktemp("in_step"), mixer=mixer)
