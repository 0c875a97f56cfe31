"""A saved state is the state, and goes only with the model that made it."""

import dataclasses
import json

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
    save_state(path, state, *reader.parts)
    return path, state


def test_going_on_from_a_file_is_going_on(reader, saved):
    path, state = saved
    loaded = load_state(path, *reader.parts)
    texts = [generate(*reader.parts, " And ", tokens=20, state=s).text for s in (state, loaded)]
    assert texts[0] == texts[1]
    losses = [read(*reader.parts, "It is twice blest", s).loss_T for s in (state, loaded)]
    np.testing.assert_array_equal(*losses)


def refusal(path, *parts):
    with pytest.raises(ValueError, match="belongs to another model") as error:
        load_state(path, *parts)
    return str(error.value)


def test_another_configuration_is_refused_with_both_fingerprints(reader, saved):
    path, _ = saved
    other = LanguageModel(dataclasses.replace(reader.model.config, depth=3))
    said = refusal(path, other, reader.params, reader.tokenizer)
    assert "the configuration of the model differs" in said
    for model in (reader.model, other):
        assert fingerprint(model, reader.params).configuration in said


def test_another_seed_is_refused_with_both_fingerprints(reader, saved):
    """Two runs of one configuration are two models."""
    path, _ = saved
    other = init_params(reader.model.config, jax.random.key(1))
    said = refusal(path, reader.model, other, reader.tokenizer)
    assert "the configuration is the same and the weights differ" in said
    for params in (reader.params, other):
        assert fingerprint(reader.model, params).weights in said


def test_another_tokenizer_is_refused(reader, saved):
    path, _ = saved
    said = refusal(path, reader.model, reader.params, ByteTokenizer(end=True))
    assert "the tokenizer differs" in said


def test_weights_are_the_same_wherever_they_are(reader):
    devices = jax.devices()
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    split = lambda leaf: leaf.ndim > 0 and leaf.shape[0] % 8 == 0
    places = {
        "another device": jax.device_put(reader.params, devices[1]),
        "sharded": jax.tree.map(
            lambda leaf: jax.device_put(leaf, sharding) if split(leaf) else leaf, reader.params
        ),
        "host": jax.device_get(reader.params),
    }
    assert any(map(split, jax.tree.leaves(reader.params)))
    for params in places.values():
        assert fingerprint(reader.model, params) == fingerprint(reader.model, reader.params)


def test_one_bit_of_the_weights_is_noticed(reader):
    leaves, tree = jax.tree.flatten(reader.params)
    seen = {fingerprint(reader.model, reader.params).weights}
    for i, leaf in enumerate(leaves):
        bits = np.array(leaf)
        bits.reshape(-1).view(np.uint8)[-1] ^= 0x80
        changed = jax.tree.unflatten(tree, [*leaves[:i], bits, *leaves[i + 1 :]])
        seen.add(fingerprint(reader.model, changed).weights)
    assert len(seen) == 1 + len(leaves)


@pytest.mark.parametrize(
    ("written", "said"), [(1, "does not say which weights"), (99, "upgrade hope_jax")]
)
def test_files_of_other_versions_are_told_apart(reader, saved, written, said):
    path, _ = saved
    entries = dict(np.load(path))
    manifest = json.loads(str(entries["manifest"])) | {"format": written}
    np.savez(path, **entries | {"manifest": np.array(json.dumps(manifest))})
    with pytest.raises(ValueError, match=said):
        load_state(path, *reader.parts)


def test_a_file_has_the_permissions_of_any_new_file(saved):
    path, _ = saved
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("damage", ["cut", "flip", "compression", "other"])
def test_a_damaged_file_is_refused(reader, saved, damage):
    path, _ = saved
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "compression":  # of the first entry, in the directory at the end
        data[data.index(b"PK\x01\x02") + 10] ^= 0xFF
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
    else:
        data = b"not an archive"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        load_state(path, *reader.parts)


def test_a_file_that_is_not_there_is_an_os_error(reader, tmp_path):
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "none.npz", *reader.parts)


def test_a_write_that_fails_leaves_the_old_file(reader, saved, monkeypatch):
    path, state = saved
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_state(path, state, *reader.parts)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["state.npz"]


def test_half_precision_states(tmp_path):
    config = ModelConfig(dim=8, depth=1, mixer=AttentionConfig(heads=1), dtype="bfloat16")
    model, params = LanguageModel(config), init_params(config, jax.random.key(0))
    parts = (model, params, ByteTokenizer())
    state = read(*parts, "abc").state
    save_state(tmp_path / "s.npz", state, *parts)
    loaded = load_state(tmp_path / "s.npz", *parts)
    assert loaded.state.keys_BSHK.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        loaded.state.keys_BSHK[:, :, :3], state.state.keys_BSHK[:, :, :3]
    )
