"""A small text, prepared once, and the smallest run that has every part."""

import pytest

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from hope_jax.data import ByteTokenizer, prepare
from hope_jax.data.sources import TextSource
from hope_jax.training.metrics import read_log

LINE = "The quick brown fox jumps over the lazy dog, and nobody saw it but {}.\n"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folder with a prepared text of 20 documents."""
    folder = tmp_path_factory.mktemp("text")
    text = "%\n".join(LINE.format(n) * 3 for n in range(20))
    (folder / "text.txt").write_text(text)
    source = TextSource([folder / "text.txt"], separator="%", validation=0.2)
    prepare(folder / "data", source, ByteTokenizer())
    return folder / "data"


@pytest.fixture(scope="session")
def config(data):
    """Twelve steps of a model with two CMS levels, and a checkpoint every four."""
    return TrainConfig(
        name="tiny",
        model=ModelConfig(
            dim=16,
            depth=1,
            mixer=AttentionConfig(heads=2),
            cms=CMSConfig(periods=(1, 3), hidden=16),
        ),
        data=DataConfig(path=str(data), batch=4, length=16),
        optim=OptimConfig(warmup=2),
        mesh=MeshConfig(fsdp=1),
        steps=12,
        log_every=1,
        eval_every=6,
        eval_batches=2,
        checkpoint_every=4,
        sample_tokens=0,
        position_plot=False,
    )


@pytest.fixture(scope="session")
def logged():
    """Reads step -> (loss, gradient norm) of a run; a step that is logged twice fails."""

    def read(workdir):
        records = [r for r in read_log(workdir / "metrics.jsonl") if "loss" in r]
        steps = [r["step"] for r in records]
        assert steps == sorted(set(steps))
        return {r["step"]: (r["loss"], r["grad_norm"]) for r in records}

    return read
