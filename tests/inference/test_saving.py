"""A saved state is the state, and goes only with the model that made it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import AttentionConfig, ModelConfig
from hope_jax.data import ByteTokenizer
from hope_jax.inference import fingerprint, generate, load_state, read, save_state
from hope_jax.models import LanguageModel, init_params


@pytest.fixture
def saved(reader, text, tmp_path):
    state = read(*reader.parts, text).state
    path = tmp_path / "folder" / "state.npz"
    save_state(path, state, reader.model.config, reader.tokenizer)
    return path, state


def test_going_on_from_a_file_is_going_on(reader, saved):
    path, state = saved
    loaded = load_state(path, reader.model.config, reader.tokenizer)
    texts = [generate(*reader.parts, " And ", tokens=20, state=s).text for s in (state, loaded)]
    assert texts[0] == texts[1]
    losses = [read(*reader.parts, "It is twice blest", s).loss_T for s in (state, loaded)]
    np.testing.assert_array_equal(*losses)


def test_another_model_is_refused_with_both_fingerprints(reader, saved):
    path, _ = saved
    config = reader.model.config
    other = dataclasses.replace(config, depth=3)
    with pytest.raises(ValueError) as error:
        load_state(path, other, reader.tokenizer)
    assert fingerprint(config) in str(error.value) and fingerprint(other) in str(error.value)


def test_another_tokenizer_is_refused(reader, saved):
    path, _ = saved
    with pytest.raises(ValueError, match="tokenizer"):
        load_state(path, reader.model.config, ByteTokenizer(end=True))


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_a_damaged_file_is_refused(reader, saved, damage):
    path, _ = saved
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
    else:
        data = b"not an archive"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        load_state(path, reader.model.config, reader.tokenizer)


def test_a_file_that_is_not_there_is_an_os_error(reader, tmp_path):
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "none.npz", reader.model.config, reader.tokenizer)


def test_a_write_that_fails_leaves_the_old_file(reader, saved, monkeypatch):
    path, state = saved
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_state(path, state, reader.model.config, reader.tokenizer)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["state.npz"]


def test_half_precision_states(tmp_path):
    config = ModelConfig(dim=8, depth=1, mixer=AttentionConfig(heads=1), dtype="bfloat16")
    params, tokenizer = init_params(config, jax.random.key(0)), ByteTokenizer()
    state = read(LanguageModel(config), params, tokenizer, "abc").state
    save_state(tmp_path / "s.npz", state, config, tokenizer)
    loaded = load_state(tmp_path / "s.npz", config, tokenizer)
    assert loaded.state.keys_BSHK.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        loaded.state.keys_BSHK[:, :, :3], state.state.keys_BSHK[:, :, :3]
    )
