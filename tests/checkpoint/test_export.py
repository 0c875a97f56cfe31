"""Slow weights on their own: small, whole, and refused where training would go on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hope_jax
from hope_jax.checkpoint import CheckpointManager, Snapshot
from hope_jax.cli.main import main
from hope_jax.config import AttentionConfig, CMSConfig, ModelConfig, TrainConfig
from hope_jax.data import ByteTokenizer
from hope_jax.models import init_params
from hope_jax.optim import make
from hope_jax.training.identity import describe_run
from hope_jax.training.state import TrainState, to_snapshot


def items(folder):
    return {path.name for path in folder.iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    model = ModelConfig(
        dim=64, depth=1, mixer=AttentionConfig(heads=2), cms=CMSConfig((1, 2), 256)
    )
    config = TrainConfig(model=model)
    params = init_params(model, jax.random.key(0))
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero, zero, params, make(config, params).init(params))
    folder = tmp_path_factory.mktemp("run")
    manager = CheckpointManager(folder / "checkpoints")
    manager.save(to_snapshot(state, 7, {}, describe_run(config, ByteTokenizer())))
    manager.close()
    return folder


def test_it_is_the_same_model_and_smaller(run, tmp_path, capsys):
    given = tmp_path / "given"
    assert main(["export", str(run), str(given)]) == 0
    assert str(given / "7") in capsys.readouterr().out
    assert any(name.startswith("level_") for name in items(run / "checkpoints/7"))
    assert items(given / "7") == {"slow", "config", "contents", "position"}
    old, new = hope_jax.load(run), hope_jax.load(given)
    assert new.step == 7 and new.config == old.config and new.versions == old.versions
    assert new.tokenizer.fingerprint == old.tokenizer.fingerprint
    jax.tree.map(np.testing.assert_array_equal, old.params, new.params)
    here = str(tmp_path).encode()  # nothing says where it was written
    assert not any(here in file.read_bytes() for file in given.rglob("*") if file.is_file())


def test_a_folder_with_something_in_it_is_left_alone(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty; give a new folder"):
        hope_jax.export(run, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(FileNotFoundError, match="no run or checkpoint at"):
        hope_jax.export(tmp_path / "none", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_full_disk_does_not_stand_in_the_way_of_the_next_try(
    run, tmp_path, capsys, full_disk, there
):
    given = tmp_path / "given"
    if there:
        given.mkdir()
    with full_disk(20_000):
        assert main(["export", str(run), str(given)]) == 2
    error = capsys.readouterr().err
    assert "step 7 could not be written to" in error and "make room" in error
    assert given.exists() == there and not (there and any(given.iterdir()))
    assert main(["export", str(run), str(given)]) == 0


def test_weights_without_a_tokenizer_do_not_stay(run, tmp_path, monkeypatch):
    def no_room(tokenizer, folder):
        raise OSError("no room")

    monkeypatch.setattr(ByteTokenizer, "save", no_room)
    with pytest.raises(OSError, match="no room"):
        hope_jax.export(run, tmp_path / "given")
    assert not (tmp_path / "given").exists()


def test_training_does_not_go_on_from_it(run, tmp_path):
    hope_jax.export(run, tmp_path / "given")
    loaded = hope_jax.load(run)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), loaded.params
    )
    snapshot = Snapshot(0, like, {"period_1": {"mean": like}}, {}, {}, {})
    with pytest.raises(ValueError, match="given/7 was exported: it has slow weights"):
        CheckpointManager(tmp_path / "given").restore(snapshot)
