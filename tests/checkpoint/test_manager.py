"""Checkpoints of a toy run: exact, per level, robust against broken files and full disks."""

import contextlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.checkpoint import CheckpointManager, Snapshot, WriteFailed, inventory
from hope_jax.checkpoint.storage import read_arrays, read_json
from hope_jax.nested import LevelState

OPTIMIZER = optax.adamw(1e-2)


def make_snapshot(step: int) -> Snapshot:
    """A run with two levels, one of them without any parameter."""
    slow = {
        "embed": jax.random.normal(jax.random.key(step), (16, 8)),
        "blocks": {"w": jnp.full((2, 4), step, jnp.bfloat16), "on": jnp.array([True, False])},
    }
    return Snapshot(
        step=step,
        slow=slow,
        levels={"period_1": OPTIMIZER.init(slow), "period_8": ()},
        loop={"bad": jnp.int32(step), "empty": jnp.zeros((0, 3))},
        position={"epoch": step, "none": None, "nested": {"list": [1, {}]}},
        config={"name": "toy", "note": "ß"},
    )


def abstract(s: Snapshot) -> Snapshot:
    slow, levels, loop = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        (s.slow, s.levels, s.loop),
    )
    return Snapshot(0, slow, levels, loop, None, {})


def like() -> Snapshot:
    return abstract(make_snapshot(0))


def assert_same(a: Snapshot, b: Snapshot):
    assert (a.step, a.position, a.config) == (b.step, b.position, b.config)
    trees = [(s.slow, s.levels, s.loop) for s in (a, b)]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
    jax.tree.map(np.testing.assert_array_equal, *trees)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 1 to 5, of which three were kept."""
    folder = tmp_path_factory.mktemp("toy") / "checkpoints"
    manager = CheckpointManager(folder, keep=3)
    for step in range(1, 6):
        manager.save(make_snapshot(step))
    manager.close()
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_newest_is_restored_exactly_and_old_ones_are_dropped(saved):
    assert sorted(p.name for p in saved.iterdir()) == ["3", "4", "5"]
    assert_same(CheckpointManager(saved).restore(like()), make_snapshot(5))


@pytest.mark.parametrize("got", [True, False], ids=["got", "lost"])
def test_a_level_that_got_or_lost_a_clip_keeps_its_state(tmp_path, got):
    slow = {"w": jnp.arange(3.0)}
    _, plain = OPTIMIZER.update(slow, OPTIMIZER.init(slow), slow)
    clipped = optax.clip_by_global_norm(1.0).init(slow), plain  # as of `optax.chain`

    def snapshot(opt_state):
        level = LevelState(opt_state, {"w": slow["w"] + 1}, {})
        return Snapshot(1, slow, {"period_2": level}, {"n": jnp.int32(3)}, {}, {})

    before, after = map(snapshot, (plain, clipped) if got else (clipped, plain))
    manager = CheckpointManager(tmp_path / "c")
    manager.save(before)
    manager.close()
    assert_same(manager.restore(abstract(after), renew=lambda config: ()), after)
    other_rule = manager.restore(abstract(after), renew=lambda config: ["period_2"])
    level = other_rule.levels["period_2"]
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(level.opt_state))
    np.testing.assert_array_equal(level.grad_sum["w"], slow["w"] + 1)


def test_nothing_there(tmp_path):
    assert CheckpointManager(tmp_path / "none").restore(like()) is None


def test_donating_right_after_save_does_not_change_what_is_written(tmp_path):
    step = jax.jit(lambda t: jax.tree.map(lambda x: x * 3 + 1, t), donate_argnums=0)
    tree = step({"w": jnp.ones((512, 1024))})
    want = np.array(tree["w"])
    manager = CheckpointManager(tmp_path / "c")
    manager.save(Snapshot(1, tree, {}, {"n": jnp.int32(1)}, {}, {}))
    for _ in range(20):
        tree = step(tree)
    manager.close()
    found = read_arrays(
        tmp_path / "c" / "1",
        {"slow": {"w": np.empty((512, 1024), np.float32)}},
        read_json(tmp_path / "c" / "1")["contents"],
    )
    np.testing.assert_array_equal(found["slow"]["w"], want)


def test_slow_weights_alone_without_the_rest(copy):
    path = copy / "5"
    shutil.rmtree(path / "level_period_1")
    contents = read_json(path, ("contents",))["contents"]
    table = contents["items"]["slow"]
    wanted = {name: np.empty(t["shape"], t["dtype"]) for name, t in table.items()}
    found = read_arrays(path, {"slow": wanted}, contents)["slow"]
    np.testing.assert_array_equal(found["embed"], make_snapshot(5).slow["embed"])


def _files(path):
    return sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size > 0)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    data = bytearray(path.read_bytes())
    for i in range(len(data) // 3, len(data)):
        data[i] ^= 0x55
    path.write_bytes(data)


def _list_of_other_files(step):
    (step / "files.json").write_text('{"a": 1}')


def _folder_in_place_of_a_file(step):
    """What is there cannot be read: an `OSError`, as of a disk that fails."""
    (step / "files.json").unlink()
    (step / "files.json").mkdir()


def _contents(change):
    def damage(step):
        (step / "files.json").unlink()
        path = step / "contents" / "data.json"
        contents = json.loads(path.read_text())
        change(contents)
        path.write_text(json.dumps(contents))

    return damage


def _largest(path):
    return max(_files(path), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda step: _truncate(_largest(step / "slow")),
        lambda step: _flip(_largest(step / "slow")),
        lambda step: _flip(_largest(step / "level_period_1")),
        lambda step: _truncate(step / "contents" / "data.json"),
        lambda step: shutil.rmtree(step / "position"),
        lambda step: [p.write_bytes(b"") for p in _files(step)],
        # damage inside a file too large for a CRC: the arrays' own checksums must tell
        _contents(lambda c: c["items"]["slow"]["blocks/w"].update(checksum=1)),
        _contents(lambda c: c["items"]["slow"]["blocks/w"].pop("checksum")),
        _contents(lambda c: c.pop("items")),
        _contents(lambda c: c.update(format="1")),
        _list_of_other_files,
        _folder_in_place_of_a_file,
    ],
    ids=[
        *("truncated", "flipped", "optimizer", "json", "missing", "emptied", "bits"),
        *("no checksum", "no items", "format", "list", "unreadable"),
    ],
)
def test_broken_newest_is_set_aside_and_the_previous_used(copy, damage):
    damage(copy / "5")
    said = []
    assert_same(CheckpointManager(copy, report=said.append).restore(like()), make_snapshot(4))
    assert str(copy / "5") in said[0] and "cannot be read: " in said[0]
    assert "5.corrupt" in said[0] and "step 4" in said[1]
    assert sorted(p.name for p in copy.iterdir()) == ["3", "4", "5.corrupt"]
    again = CheckpointManager(copy)
    again.save(make_snapshot(5))
    again.close()
    assert_same(CheckpointManager(copy).restore(like()), make_snapshot(5))


def test_what_may_not_be_read_is_no_damage(copy, monkeypatch):
    def refused(folder, items):
        raise PermissionError(13, "Permission denied", str(folder / "files.json"))

    monkeypatch.setattr(inventory, "damage", refused)
    with pytest.raises(PermissionError, match="Permission denied"):
        CheckpointManager(copy).restore(like())
    assert sorted(p.name for p in copy.iterdir()) == ["3", "4", "5"]


def test_every_truncated_file_is_noticed_or_harmless(copy):
    """No damage may end in other numbers: either the previous step, or the exact values."""
    for victim in _files(copy / "5"):
        whole = victim.read_bytes()
        _truncate(victim)
        restored = CheckpointManager(copy, report=lambda line: None).restore(like())
        assert_same(restored, make_snapshot(restored.step))
        if restored.step != 5:
            (copy / "5.corrupt").rename(copy / "5")
        victim.write_bytes(whole)


def test_all_broken_is_an_error_that_renames_nothing(copy):
    for step in copy.iterdir():
        _truncate(_largest(step / "slow"))
    with pytest.raises(ValueError, match="no checkpoint under .* can be read"):
        CheckpointManager(copy).restore(like())
    assert sorted(p.name for p in copy.iterdir()) == ["3", "4", "5"]


def test_newer_format_and_other_arrays_are_refused_and_kept(copy):
    path = copy / "5" / "contents" / "data.json"
    (copy / "5" / "files.json").unlink()
    text = path.read_text()
    path.write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match="format 99.*upgrade"):
        CheckpointManager(copy).restore(like())
    path.write_text(text)
    other = like()
    other.slow["embed"] = jax.ShapeDtypeStruct((16, 9), jnp.float32)
    with pytest.raises(ValueError, match=r"'embed' is float32\[16, 8\] .*float32\[16, 9\]"):
        CheckpointManager(copy).restore(other)
    other.slow["extra"] = other.slow.pop("embed")
    with pytest.raises(ValueError, match="the checkpoint has 'embed' and the config"):
        CheckpointManager(copy).restore(other)
    assert (copy / "5").is_dir()


def large_snapshot(step: int) -> Snapshot:
    large = make_snapshot(step)
    large.slow["embed"] = jax.random.normal(jax.random.key(0), (256, 1024))
    return large


def test_full_disk_is_a_clear_error_and_leaves_the_previous(tmp_path, full_disk):
    manager = CheckpointManager(tmp_path / "c")
    manager.save(make_snapshot(1))
    manager.wait()
    told = pytest.raises(WriteFailed, match="step 2 could not .*step 1 is intact")
    with full_disk(20_000), told, contextlib.closing(manager):
        manager.save(large_snapshot(2))
        manager.wait()  # closing must not put another error in the place of this one
    assert_same(CheckpointManager(tmp_path / "c").restore(like()), make_snapshot(1))


def test_closing_tells_a_failed_write_once(tmp_path, full_disk):
    manager = CheckpointManager(tmp_path / "c")
    with full_disk(20_000):
        manager.save(large_snapshot(2))
        with pytest.raises(WriteFailed, match="step 2 could not .* There is no other"):
            manager.close()
    manager.close()


def test_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "c").write_text("a file is in the way")
    with pytest.raises(WriteFailed, match="cannot use"):
        CheckpointManager(tmp_path / "c").save(make_snapshot(1))
