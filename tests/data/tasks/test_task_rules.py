"""The rules of the tasks, read off their symbols."""

import itertools

import numpy as np
import pytest

from hope_jax.config.tasks import (
    CompressionConfig,
    CopyingConfig,
    GroupConfig,
    InductionConfig,
    MemorizationConfig,
    RecallConfig,
)
from hope_jax.data.tasks.registry import make_task


def drawn(config, length, count=40):
    task = make_task(config, length)
    for seed in range(count):
        example = task.example(np.random.default_rng(seed))
        yield task, example, [task.symbols[i] for i in example.inputs_T]


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_recall_asks_for_values_of_keys_seen_before(noise):
    for task, example, names in drawn(RecallConfig(noise=noise), 120):
        kept = [(t, n) for t, n in enumerate(names) if n[0] != "n"]
        if noise:
            assert 0.2 < 1 - len(kept) / 120 < 0.6
        table, asked = {}, set()
        for (t, key), (_, value) in itertools.pairwise(kept):
            if key[0] == "k" and value[0] == "v":
                if key in table:
                    assert table[key] == value
                    asked.add(t)
                table[key] = value
        last = task.symbols[example.last]
        found = set(np.flatnonzero(example.asked_T))
        # between a key and its value there is nothing, not even noise
        assert found - {119} == asked - {119}
        assert (119 in found) <= (names[119] in table and table[names[119]] == last)


def test_fuzzy_recall_has_motifs_and_one_table():
    for _, example, names in drawn(RecallConfig(keys=4, values=5, motif=3), 120):
        parts = [tuple(part) for _, part in itertools.groupby(names, key=lambda name: name[0])]
        pairs = list(zip(parts[0:-2:2], parts[1:-1:2], strict=False))
        table = {}
        for key, value in pairs:
            assert key[0][0] == "k" and value[0][0] == "v"
            assert len(key) <= 3 and len(value) <= 3 and len(set(key)) == len(key)
            assert table.setdefault(key, value) == value
        assert len(table) <= 4
        where = np.flatnonzero(example.asked_T)
        assert all(names[t + 1][0] == "v" for t in where if t < 119)


def test_copying_asks_for_the_symbols_in_order():
    for task, example, names in drawn(CopyingConfig(symbols=6, copied=5), 30):
        assert names[25:] == ["?"] * 5
        text = [n for n in names[:25] if n != "."]
        assert len(text) == 5
        assert [task.symbols[i] for i in example.targets_T[example.asked_T]] == text
        assert example.asked_T[25:].all() and not example.asked_T[:25].any()


def test_compression_asks_for_all_symbols():
    for _, example, names in drawn(CompressionConfig(symbols=6), 9):
        assert names[-1] == "?" and "?" not in names[:-1]
        np.testing.assert_array_equal(example.targets_T[:-1], example.inputs_T[:-1])
        assert example.asked_T.tolist() == [True] * 8 + [False]


def test_induction_asks_for_what_followed_the_mark():
    places = set()
    for task, example, names in drawn(InductionConfig(symbols=6), 10, count=200):
        marks = [t for t, name in enumerate(names) if name == "!"]
        assert len(marks) == 2 and marks[1] == 9
        assert names[marks[0] + 1] == task.symbols[example.last]
        assert np.flatnonzero(example.asked_T).tolist() == [9]
        places.add(marks[0])
    assert places == set(range(8))


def test_memorization_has_one_table_for_all_texts():
    table = {}
    for task, example, names in drawn(MemorizationConfig(keys=7, values=9), 12):
        assert names[1::2] == ["?"] * 6
        for t in range(0, 12, 2):
            value = task.symbols[example.targets_T[t + 1]]
            assert value[0] == "v" and table.setdefault(names[t], value) == value
    assert len(table) == 7


@pytest.mark.parametrize(("group", "size"), [("S3", 6), ("A4", 12), ("A5", 60), ("S5", 120)])
def test_groups_by_applying_the_permutations(group, size):
    for task, example, names in drawn(GroupConfig(group=group), 9, count=10):
        assert len(task.symbols) == size
        state = list(range(1, int(group[1]) + 1))
        for name, target in zip(names, example.targets_T, strict=True):
            state = [int(name[x - 1]) for x in state]
            assert task.symbols[target] == "".join(map(str, state))


def test_swaps_move_two():
    seen = set()
    for _, _, names in drawn(GroupConfig(swaps=True), 30):
        seen |= set(names)
    assert len(seen) == 10
    assert all(sum(c != d for c, d in zip(n, "12345", strict=True)) == 2 for n in seen)
    with pytest.raises(ValueError, match="alternating group has no swaps"):
        GroupConfig(group="A5", swaps=True)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (RecallConfig, {"keys": 1}, "task.keys is 1"),
        (RecallConfig, {"noise": 1.0}, "task.noise is 1.0"),
        (RecallConfig, {"motif": 9}, "task.motif is 9; use 1 to 8"),
        (CopyingConfig, {"copied": 0}, "task.copied is 0"),
        (CompressionConfig, {"symbols": 1}, "task.symbols is 1"),
        (InductionConfig, {"symbols": 1}, "task.symbols is 1"),
        (MemorizationConfig, {"keys": 0}, "task.keys is 0"),
        (GroupConfig, {"group": "D4"}, "task.group"),
    ],
)
def test_fields_that_do_not_fit(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)
