"""Needles in a haystack: exact lengths, depth, answers, and what is held out."""

import collections
import pickle
import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from hope_jax.config import DataConfig
from hope_jax.config.tasks import NeedleConfig
from hope_jax.config.tasks.needle import FORMS
from hope_jax.data import open_dataset
from hope_jax.data.prepared import find_split
from hope_jax.data.tasks.numbered import Numbers
from hope_jax.data.tokenizers import ByteTokenizer

SENTENCE = re.compile(r"\n(?:The|One) (?:number|code) of (\w+) is ([\w-]+)\.\n")
VALUE = re.compile(r"[\da-f-]{3,}")


def opened(folder=None, length=900, split="train", **fields):
    config = DataConfig(task=NeedleConfig(**fields), path=folder, length=length, batch=4)
    return open_dataset(config, split=split)


def text_of(data, example):
    return data.tokenizer.decode(example.inputs_T).decode(errors="replace")


def answer_of(data, example):
    return data.tokenizer.decode(example.targets_T[example.asked_T]).decode()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["bytes", "subwords"])
def test_the_answer_is_what_the_needles_say(form, kind, subwords):
    data = opened(str(subwords) if kind == "subwords" else None, form=form)
    for number in range(20):
        example = data.source.example(number)
        text = text_of(data, example)
        needles = SENTENCE.findall(text)
        assert len(needles) == (1 if form.startswith("single") else 4)
        question = text.rsplit("\n", 1)[1]
        answer = answer_of(data, example)
        assert question.startswith("What ") and question.endswith(answer)
        values = VALUE.findall(answer)
        asked = [key for key in re.findall(r"\w+", question) if key in dict(needles)]
        if form == "multivalue":
            assert values == [value for _, value in needles]
        elif form == "multiquery":
            assert len(set(asked)) == 4
            assert values == [dict(needles)[key] for key in asked]
        else:
            assert values == [dict(needles)[asked[0]]]
        assert len({value for _, value in needles}) == len(needles)
        expected = (
            r" [\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}" if form == "single_3" else r" \d{7}"
        )
        assert re.fullmatch(rf"({expected},)*{expected}\.", answer)


@pytest.mark.parametrize("kind", ["bytes", "subwords"])
def test_a_value_has_the_same_tokens_where_it_is_told(kind, subwords):
    """So that an answer can be copied token by token."""
    data = opened(str(subwords) if kind == "subwords" else None, form="single_2")
    for number in range(10):
        example = data.source.example(number)
        answer = example.targets_T[example.asked_T].tolist()
        windows = np.lib.stride_tricks.sliding_window_view(example.inputs_T, len(answer))
        assert (windows == answer).all(axis=1).sum() == 2


@hypothesis.settings(deadline=None, max_examples=30, derandomize=True)
@hypothesis.given(
    length=strategies.integers(700, 3000),
    form=strategies.sampled_from(FORMS),
    kind=strategies.sampled_from(["bytes", "subwords"]),
    seed=strategies.integers(0, 1000),
)
def test_every_length_is_exact(subwords, length, form, kind, seed):
    data = opened(str(subwords) if kind == "subwords" else None, length, form=form)
    example = data.source.task.example(np.random.default_rng(seed))
    assert len(example.inputs_T) == len(example.targets_T) == length
    assert example.asked_T[-2] and not example.asked_T[-1]  # the text ends with the answer
    assert example.inputs_T.dtype == np.int32
    text = text_of(data, example)
    told, answer = SENTENCE.findall(text), VALUE.findall(answer_of(data, example))
    assert set(answer) <= {value for _, value in told}
    if kind == "bytes":
        assert len(data.tokenizer.decode(example.inputs_T)) == length


@pytest.mark.parametrize("kind", ["bytes", "subwords"])
@pytest.mark.parametrize("form", ["single_1", "single_2", "multikey", "multiquery"])
def test_depth_is_uniform_and_is_where_the_needle_is(form, kind, subwords):
    data = opened(str(subwords) if kind == "subwords" else None, form=form)
    depths = []
    for number in range(400):
        example = data.source.example(number)
        text = text_of(data, example)
        key = VALUE.search(answer_of(data, example)).group()
        sentence = next(m for m in SENTENCE.finditer(text) if m.group(2) == key)
        before = SENTENCE.sub("", text[: sentence.start() + 1])
        whole = SENTENCE.sub("", text.rsplit("\n", 1)[0])
        off = 0.002 if kind == "bytes" else 0.08  # pieces have unequal lengths
        assert len(before) / len(whole) == pytest.approx(example.depth, abs=off + 1 / 400)
        depths.append(example.depth)
    counts = np.histogram(depths, bins=10, range=(0, 1))[0]
    assert ((counts - 40) ** 2 / 40).sum() < 27.9  # of 9 degrees of freedom: one in a thousand
    assert min(depths) < 0.02 and max(depths) > 0.98


def test_several_values_have_the_depth_of_the_first():
    data = opened(form="multivalue")
    depths = [data.source.example(n).depth for n in range(400)]
    assert np.mean(depths) == pytest.approx(1 / 5, abs=0.03)  # least of four


def test_needles_stand_between_sentences_of_a_long_text_and_words_of_a_short_one():
    for length, sentences in ((20_000, True), (250, False)):
        data = opened(length=length)
        for number in range(40):
            text = text_of(data, data.source.example(number))
            found = SENTENCE.search(text)
            before, after = text[: found.start()], text[found.end() :]
            if sentences:
                assert not before or before[-1] in ".!?\"')\n"
            at_an_end = not before or after.startswith("\nWhat")
            assert at_an_end or before[-1].isspace() or after[0].isspace()


def test_nothing_that_is_held_out_occurs_in_training():
    said = collections.defaultdict(set)
    fields = {"form": "multikey", "digits": 3, "syllables": 2}
    for split in ("train", "validation"):
        data = opened(split=split, **fields)
        for number in range(300):
            text = text_of(data, data.source.example(number))
            for key, value in SENTENCE.findall(text):
                said[split, "keys"].add(key)
                said[split, "values"].add(value)
            said[split, "text"] |= {line for line in text.split("\n")[1:-1] if len(line) > 40}
    for kind in ("keys", "values", "text"):
        assert len(said["train", kind]) > 100 and len(said["validation", kind]) > 100
    for kind in ("keys", "values"):
        assert not said["train", kind] & said["validation", kind]
    plays = find_split(None, None, "train").stream
    train = ByteTokenizer().decode(plays.read(0, plays.tokens)[0]).decode()
    lines = set(train.split("\n"))
    assert len(said["train", "text"] & lines) > 0.8 * len(said["train", "text"])
    assert len(said["validation", "text"] & lines) < 10  # such as stage directions


@pytest.mark.parametrize("size", [10, 100, 75, 1024])
def test_numbers_are_shared_out(size):
    rng = np.random.default_rng(0)
    train, held_out = Numbers(size, held_out=False), Numbers(size, held_out=True)
    assert train.count + held_out.count == size
    assert held_out.count == size // 5
    found = held_out.draw(rng, held_out.count), train.draw(rng, train.count)
    assert sorted(found[0] + found[1]) == list(range(size))
    parts = np.histogram(found[0], bins=5, range=(0, size))[0]
    assert parts.max() - parts.min() <= 2


def test_a_haystack_goes_round_and_has_no_marks_of_documents(subwords):
    split = find_split(str(subwords), None, "validation")
    assert split.info.documents > 5
    length = split.info.tokens - split.info.documents
    data = opened(str(subwords), length, "validation", form="single_2")
    for number in range(3):
        example = data.source.example(number)
        assert len(example.inputs_T) == length
        assert (example.inputs_T != data.tokenizer.end_id).all()
    with pytest.raises(ValueError, match=f"validation split of .* has {length} tokens of text"):
        opened(str(subwords), length + 1, "validation", form="single_2")
    opened(str(subwords), length + 1, "validation", form="single_1")  # needs no text


@pytest.mark.parametrize("kind", ["bytes", "subwords"])
def test_reader_processes_can_be_given_it(kind, subwords):
    data = opened(str(subwords) if kind == "subwords" else None)
    again = pickle.loads(pickle.dumps(data.source))
    np.testing.assert_array_equal(again.row(5)["tokens"], data.source.row(5)["tokens"])


def test_chance_is_exact():
    assert opened(digits=3, split="validation").source.task.chance == 1 / 200
    assert opened(digits=3).source.task.chance == 1 / 800
    all_four = opened(digits=3, form="multiquery", split="validation").source.task.chance
    assert all_four == pytest.approx(1 / (200 * 199 * 198 * 197))
    code = opened(form="single_3", split="validation").source.task.chance
    assert code == pytest.approx(5 / 16**32)


def test_a_position_belongs_to_the_text(subwords):
    batches = iter(opened())
    with pytest.raises(ValueError, match="this position was saved with data"):
        batches.set_state(iter(opened(str(subwords))).get_state())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"form": "single"}, "task.form is 'single'; choose one of 'single_1'"),
        ({"digits": 1}, "task.digits is 1"),
        ({"syllables": 0}, "task.syllables is 0"),
        ({"needles": 1}, "task.needles is 1"),
        ({"needles": 21, "digits": 2}, "task.digits 2 only 20 are held out"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        NeedleConfig(**fields)


def test_folders_and_tokenizers_that_do_not_fit(tmp_path, subwords):
    with pytest.raises(ValueError, match="is not prepared data"):
        opened(str(tmp_path))
    config = DataConfig(task=NeedleConfig(), path=str(subwords), length=900)
    with pytest.raises(ValueError, match="was made with tokenizer sentencepiece"):
        open_dataset(config, ByteTokenizer())
    with pytest.raises(
        ValueError, match=r"data.length is 100, .* need up to 97 tokens, .* of 194 or more"
    ):
        opened(length=100)
