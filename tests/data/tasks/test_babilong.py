"""Stories hidden in books: order, exact lengths, answers, and files that are wrong."""

import pickle

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from hope_jax.config import DataConfig
from hope_jax.config.tasks import BabilongConfig
from hope_jax.data import open_dataset
from hope_jax.data.tasks.stories import Question, read_stories


def opened(stories, folder=None, length=600, split="train", **fields):
    task = BabilongConfig(stories=str(stories), **fields)
    return open_dataset(DataConfig(task=task, path=folder, length=length, batch=4), split=split)


def told(data, example):
    """The facts in the text, the question and the answer."""
    text = data.tokenizer.decode(example.inputs_T).decode(errors="replace")
    *lines, last = text.split("\n")
    facts = [line for line in lines if " went to the " in line and line.endswith(".")]
    answer = data.tokenizer.decode(example.targets_T[example.asked_T]).decode()
    assert last.endswith(answer)
    return facts, last.removesuffix(answer), answer


@pytest.mark.parametrize("kind", ["bytes", "subwords"])
def test_an_example_is_a_question_of_the_file(kind, stories, subwords):
    folder = str(subwords) if kind == "subwords" else None
    for split, name in (("train", "train"), ("validation", "test")):
        data = opened(stories, folder, split=split)
        questions = read_stories(stories / f"qa1_where_{name}.txt")
        known = {(q.facts, q.question, f" {q.answer}.") for q in questions}
        seen = set()
        for number in range(100):
            facts, question, answer = told(data, data.source.example(number))
            seen.add((tuple(facts), question, answer))
        assert seen <= known and len(seen) > 25


def test_tasks_come_equally_often_and_long_stories_may_be_left_out(stories):
    data = opened(stories, tasks=(1, 7), facts=2)
    counting = 0
    for number in range(300):
        facts, question, _ = told(data, data.source.example(number))
        assert len(facts) == 2
        counting += question.startswith("How many")
    assert counting == pytest.approx(150, abs=30)


@hypothesis.settings(deadline=None, max_examples=30, derandomize=True)
@hypothesis.given(
    length=strategies.integers(200, 3000),
    kind=strategies.sampled_from(["bytes", "subwords"]),
    seed=strategies.integers(0, 1000),
)
def test_every_length_is_exact(stories, subwords, length, kind, seed):
    data = opened(stories, str(subwords) if kind == "subwords" else None, length)
    example = data.source.task.example(np.random.default_rng(seed))
    assert len(example.inputs_T) == len(example.targets_T) == length
    assert example.asked_T[-2] and not example.asked_T[-1]
    facts, question, _ = told(data, example)
    assert len(facts) in (2, 4) and question.startswith("Where is ")


def test_depth_is_that_of_the_earliest_fact_that_is_needed(stories):
    data = opened(stories, length=2000, tasks=(7,))
    questions = read_stories(stories / "qa7_counting_train.txt")
    depths = []
    for number in range(200):
        example = data.source.example(number)
        facts, question, answer = told(data, example)
        asked = next(
            q
            for q in questions
            if (list(q.facts), q.question, f" {q.answer}.") == (facts, question, answer)
        )
        text = data.tokenizer.decode(example.inputs_T).decode()
        place = -1
        for fact in facts[: min(asked.support) + 1]:
            place = text.index(f"\n{fact}\n", place + 1)
        hidden = sum(len(fact) + 2 for fact in facts[: min(asked.support)])
        hay = len(text) - sum(len(fact) + 2 for fact in facts) - len(question + answer) - 1
        assert (place - hidden) / hay == pytest.approx(example.depth, abs=0.003)
        depths.append(example.depth)
    assert np.histogram(depths, bins=5, range=(0, 1))[0].min() > 5


def test_chance_is_the_commonest_answer(stories):
    assert opened(stories).source.task.chance is None


def test_reader_processes_can_be_given_it(stories):
    data = opened(stories)
    again = pickle.loads(pickle.dumps(data.source))
    np.testing.assert_array_equal(again.row(5)["tokens"], data.source.row(5)["tokens"])


def test_other_stories_are_other_data(stories, tmp_path):
    for path in stories.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("Ann", "Una"))
    batches = iter(opened(stories))
    with pytest.raises(ValueError, match="this position was saved with data"):
        batches.set_state(iter(opened(tmp_path)).get_state())


def test_a_file_is_read_as_published(tmp_path):
    path = tmp_path / "qa8_lists-sets_train.txt"
    path.write_text(
        "1 Ann took the jug.\n2 What has Ann? \tjug\t1\n3 Ann took the pan.\n"
        "4 What has Ann?\tjug,pan\t1 3\n\n1 Bo sat.\n2 Who sat? \tBo\t1\n"
    )
    assert read_stories(path) == [
        Question(("Ann took the jug.",), "What has Ann?", "jug", (0,)),
        Question(
            ("Ann took the jug.", "Ann took the pan."), "What has Ann?", "jug,pan", (0, 1)
        ),
        Question(("Bo sat.",), "Who sat?", "Bo", (0,)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Ann sat.", "line 2: 'Ann sat.' is not a number and a sentence"),
        ("2", "line 2: '2' is not a number and a sentence"),
        ("2 Who?\tAnn", "line 2: .* is not a question, its answer and the numbers"),
        ("2 Who?\tAnn\tone", "line 2: .* is not a question"),
        ("2 Who?\t\t1", "line 2: .* is not a question"),
        ("2 Who?\tAnn\t7", "line 2: this story has no fact 7 so far"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = tmp_path / "qa1_where_train.txt"
    path.write_text(f"1 Ann sat.\n{line}\n")
    with pytest.raises(ValueError, match=f"qa1_where_train.txt, {message}"):
        read_stories(path)


def test_what_does_not_fit_is_said(stories, tmp_path):
    with pytest.raises(ValueError, match="task.stories is not set"):
        open_dataset(DataConfig(task=BabilongConfig(), length=600))
    with pytest.raises(ValueError, match=r"has 0 files qa2_\*_train.txt, .* qa1_where_test"):
        opened(stories, tasks=(2,))
    with pytest.raises(ValueError, match=r"has 0 files qa1_\*_test.txt, .* has 0 files"):
        opened(tmp_path / "nowhere", split="validation")
    with pytest.raises(ValueError, match=r"data.length is 60, .* needs 1\d\d tokens"):
        opened(stories, length=60)
    with pytest.raises(ValueError, match="no question after at most 1 facts"):
        opened(stories, facts=1)
    (tmp_path / "qa1_where_train.txt").write_bytes(b"1 Ann \xff sat.\n")
    with pytest.raises(ValueError, match="byte 6 is not UTF-8"):
        opened(tmp_path)
    for fields in ({"tasks": ()}, {"tasks": (21,)}, {"tasks": (1, 1)}, {"facts": 0}):
        with pytest.raises(ValueError, match=f"task.{next(iter(fields))} is"):
            BabilongConfig(**fields)
