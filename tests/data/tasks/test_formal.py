"""Formal languages against their definitions."""

import collections
import itertools

import numpy as np
import pytest

from hope_jax.config.tasks import FormalConfig
from hope_jax.data.tasks.formal import Formal
from hope_jax.data.tasks.languages import LANGUAGES, balanced


def shut(text, a, b):
    depth = 0
    for c in text:
        depth += (c == a) - (c == b)
        if depth < 0:
            return False
    return depth == 0


BELONGS = {
    "parity": lambda s: s.count("1") % 2 == 0,
    "aa": lambda s: len(s) % 2 == 0,
    "abab": lambda s: s == "abab" * (len(s) // 4),
    "anbn": lambda s: s == "a" * (len(s) // 2) + "b" * (len(s) // 2),
    "anbncn": lambda s: s == "".join(c * (len(s) // 3) for c in "abc"),
    "shuffle2": lambda s: shut(s, "(", ")") and shut(s, "[", "]"),
}
# symbols at most of the shortest string that a prefix of t symbols and one more can become
ROOM = {
    "parity": lambda t: t + 2,
    "aa": lambda t: t + 2,
    "abab": lambda t: t + 4,
    "anbn": lambda t: 2 * (t + 1),
    "anbncn": lambda t: 3 * (t + 1),
    "shuffle2": lambda t: 2 * (t + 1),
}
LONGEST = {"parity": 7, "aa": 12, "abab": 12, "anbn": 8, "anbncn": 9, "shuffle2": 6}


@pytest.mark.parametrize("name", LANGUAGES)
def test_sets_are_what_strings_of_the_language_go_on_with(name):
    """All strings up to a length, by force."""
    language, longest = LANGUAGES[name], LONGEST[name]
    letters = language.symbols[1:]
    strings = [
        "".join(s)
        for n in range(1, longest + 1)
        for s in itertools.product(letters, repeat=n)
        if BELONGS[name]("".join(s))
    ]
    assert {len(s) for s in strings} == set(language.lengths(1, longest).tolist())
    following = collections.defaultdict(set)
    for s in strings:
        for t in range(1, len(s)):
            following[s[:t]].add(s[t])
        following[s].add("end")
    checked = 0
    for s in strings:
        ids = np.array([language.symbols.index(c) for c in s])
        for t, legal in enumerate(language.legal(ids), start=1):
            found = {c for i, c in enumerate(language.symbols) if legal >> i & 1}
            assert following[s[:t]] <= found
            if ROOM[name](t) <= longest:  # else a way on may be too long to be listed
                assert found == following[s[:t]]
                checked += 1
    assert checked >= 6


@pytest.mark.parametrize("name", LANGUAGES)
def test_strings_belong_to_the_language(name):
    language, rng = LANGUAGES[name], np.random.default_rng(0)
    for length in language.lengths(2, 60):
        ids = language.string(int(length), rng)
        assert len(ids) == length
        assert BELONGS[name]("".join(language.symbols[i] for i in ids))


def test_strings_are_uniform():
    rng = np.random.default_rng(0)
    found = collections.Counter(balanced(3, rng).tobytes() for _ in range(5000))
    assert len(found) == 5 and min(found.values()) > 850  # Catalan number, 1,000 each
    parity = LANGUAGES["parity"]
    found = collections.Counter(parity.string(4, rng).tobytes() for _ in range(4000))
    assert len(found) == 8 and min(found.values()) > 400


def test_lengths_are_uniform_and_the_end_fills_the_rest():
    task = Formal(FormalConfig(language="anbncn", shortest=5, longest=13), length=20)
    lengths = collections.Counter()
    for seed in range(900):
        example = task.example(np.random.default_rng(seed))
        size = int(example.asked_T.sum())
        lengths[size] += 1
        assert (example.inputs_T[:size] > 0).all() and not example.inputs_T[size:].any()
    assert set(lengths) == {6, 9, 12} and min(lengths.values()) > 240


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"language": "dyck"}, "task.language"),
        ({"shortest": 0}, "task.shortest is 0"),
        ({"shortest": 9, "longest": 8}, "task.longest 8 is below"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        FormalConfig(**fields)


def test_a_language_without_such_a_length():
    config = FormalConfig(language="abab", shortest=5, longest=7)
    with pytest.raises(ValueError, match="no string of 5 to 7"):
        Formal(config, 10)
