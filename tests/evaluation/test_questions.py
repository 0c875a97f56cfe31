"""Every published form is read as it is, and a wrong line is named."""

import gzip
import json

import pytest

from hope_jax.evaluation.blimp import read_paradigms
from hope_jax.evaluation.choices import SETS
from hope_jax.evaluation.lambada import read_passages
from hope_jax.evaluation.questions import Question, read_questions
from hope_jax.evaluation.records import read_records

LINES = {
    "piqa": {"goal": "Sit", "sol1": "here", "sol2": "there", "label": 1},
    "hellaswag": {
        "ctx_a": "A man sits.",
        "ctx_b": "he",
        "ctx": "A man sits. he",
        "activity_label": "Sitting",
        "endings": ["stands [title] up.", "falls.", "[x]eats.", "sleeps."],
        "label": "2",
    },
    "winogrande": {
        "sentence": "Ann fed Eve because _ was hungry.",
        "option1": "Ann",
        "option2": "Eve",
        "answer": "2",
    },
    "arc_easy": {
        "question": "What is wet?",
        "choices": {"text": ["fire", "water", "sand"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    },
    "arc_challenge": {
        "question": {
            "stem": "What is wet?",
            "choices": [{"text": "fire", "label": "1"}, {"text": "water", "label": "2"}],
        },
        "answerKey": "1",
    },
    "siqa": {
        "context": "Ann left.",
        "question": "Why?",
        "answerA": "bored",
        "answerB": "ill",
        "answerC": "late",
        "label": "3",
    },
    "boolq": {"passage": "Ice is cold.", "question": "is ice cold", "answer": True},
}
QUESTIONS = {
    "piqa": Question(("Question: Sit\nAnswer:",) * 2, (" here", " there"), 1),
    "hellaswag": Question(
        ("Sitting: A man sits. He",) * 4, (" stands. up.", " falls.", " eats.", " sleeps."), 2
    ),
    "winogrande": Question(
        ("Ann fed Eve because Ann", "Ann fed Eve because Eve"), (" was hungry.",) * 2, 1
    ),
    "arc_easy": Question(
        ("Question: What is wet?\nAnswer:",) * 3, (" fire", " water", " sand"), 1
    ),
    "arc_challenge": Question(("Question: What is wet?\nAnswer:",) * 2, (" fire", " water"), 0),
    "siqa": Question(("Q: Ann left. Why?\nA:",) * 3, (" bored", " ill", " late"), 2),
    "boolq": Question(
        ("Ice is cold.\nQuestion: is ice cold?\nAnswer:",) * 2, (" no", " yes"), 1
    ),
}


def write(path, *lines):
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def read(path, name):
    return read_questions(path, SETS[name][0])


@pytest.mark.parametrize("name", SETS)
def test_the_published_form(name, tmp_path):
    path = write(tmp_path / "a.jsonl", LINES[name], LINES[name])
    assert read(path, name) == [QUESTIONS[name]] * 2


def test_other_ways_to_write_a_label(tmp_path):
    line = LINES["boolq"] | {"label": 0}
    del line["answer"]
    assert (
        read(write(tmp_path / "a", line, line | {"label": False}), "boolq")
        == [Question(QUESTIONS["boolq"].contexts, (" no", " yes"), 0)] * 2
    )
    whole = {k: v for k, v in LINES["hellaswag"].items() if k in ("ctx", "endings", "label")}
    [question] = read(write(tmp_path / "b", whole), "hellaswag")
    assert question.contexts[0] == "A man sits. he"
    assert read(write(tmp_path / "c", LINES["piqa"] | {"label": "1"}), "piqa")[0].gold == 1


WRONG = [
    ("piqa", {"label": 2}, "field 'label' is 2; it has to be one of 0, 1"),
    ("piqa", {"goal": None}, "field 'goal' is null; it has to be a text"),
    ("hellaswag", {"endings": ["one"]}, "field 'endings' .* two texts or more"),
    ("hellaswag", {"label": ""}, "field 'label' is \"\"; it has to be one of 0, 1, 2, 3"),
    ("winogrande", {"sentence": "No gap."}, "field 'sentence' .* gap, written as _"),
    ("arc_easy", {"answerKey": "D"}, "field 'answerKey' is \"D\"; .* 'A', 'B', 'C'"),
    ("arc_easy", {"choices": []}, "field 'choices' is .*; it has to be an object"),
    (
        "arc_easy",
        {"choices": {"text": ["a", "b"], "label": ["A", "B", "C"]}},
        "in 'choices': field 'label' .* for each of 2 texts",
    ),
    (
        "arc_challenge",
        {"question": {"stem": "x", "choices": 1}},
        "in 'question': field 'choices'",
    ),
    ("siqa", {"label": 0}, "field 'label' is 0; it has to be one of 1, 2, 3"),
    ("boolq", {"answer": "perhaps"}, "field 'answer' is \"perhaps\""),
]


@pytest.mark.parametrize(("name", "change", "said"), WRONG)
def test_a_wrong_field_is_named_with_file_and_line(name, change, said, tmp_path):
    path = write(tmp_path / "a.jsonl", LINES[name], LINES[name] | change)
    with pytest.raises(
        ValueError, match=rf"a\.jsonl, line 2.*: {said}" if "in '" not in said else said
    ):
        read(path, name)


def test_a_field_that_is_missing(tmp_path):
    line = dict(LINES["piqa"])
    del line["sol2"]
    with pytest.raises(
        ValueError, match="line 1: no field 'sol2', .* are 'goal', 'label', 'sol1'"
    ):
        read(write(tmp_path / "a.jsonl", line), "piqa")


def request(question, index, label=0, **texts):
    texts = {"context": f"Q{question}", "continuation": f" A{index}"} | texts
    return {"doc_id": question, "idx": index, "label": label, "request": texts}


def test_requests(tmp_path):
    """Answers in any order; twins without the question are dropped."""
    lines = [
        request(0, 1, 1),
        request(1_000_000, 0),
        request(0, 0, 1),
        request(5, 0),
        request(5, 1),
    ]
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    assert read(tmp_path / "a.jsonl.gz", "piqa") == [
        Question(("Q0", "Q0"), (" A0", " A1"), 1),
        Question(("Q5", "Q5"), (" A0", " A1"), 0),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            [request(0, 0), request(0, 2)],
            "line 2: field 'idx' is 2; question 0 has no answer 1",
        ),
        ([request(0, 0), request(0, 0)], "line 2: field 'idx' is 0; question 0 .* two of one"),
        ([request(0, 0)], "line 1: field 'idx' is 0; a question has to have two answers"),
        ([request(0, 0, 2), request(0, 1, 2)], "line 1: field 'label' is 2"),
        (
            [request(0, 0), request(0, 1, context=3)],
            "line 2, in 'request': field 'context' is 3",
        ),
        ([request(0, 0), request("x", 1)], "line 2: field 'doc_id' is \"x\""),
        ([request(0, 0), {"goal": "x"}], "line 2: no field 'doc_id'"),
    ],
)
def test_wrong_requests(lines, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        read(write(tmp_path / "a.jsonl", *lines), "piqa")


def test_passages(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": 'He said: "A b.\n\nSigns'}, {"text": "a b c"})
    assert read_passages(path) == [('He said: "A', " b.\n\nSigns"), ("a b", " c")]
    path = write(tmp_path / "b.jsonl", request(0, 0, ["x"], continuation=" signs"))
    assert read_passages(path) == [("Q0", " signs")]
    with pytest.raises(ValueError, match="line 1: field 'text' is \"one\"; it has to be words"):
        read_passages(write(tmp_path / "c.jsonl", {"text": "one"}))


def test_paradigms(tmp_path):
    good = {"sentence_good": "a", "sentence_bad": "b"}
    write(tmp_path / "one.jsonl", good | {"UID": "island"}, good | {"UID": "island"})
    write(tmp_path / "two.jsonl", good)
    assert read_paradigms(tmp_path) == {"island": [("a", "b")] * 2, "two": [("a", "b")]}
    assert read_paradigms(tmp_path, limit=1)["island"] == [("a", "b")]
    write(tmp_path / "two.jsonl", good, {"sentence_good": "a"})
    with pytest.raises(ValueError, match=r"two\.jsonl, line 2: no field 'sentence_bad'"):
        read_paradigms(tmp_path)
    with pytest.raises(ValueError, match=r"holds no \.jsonl file"):
        read_paradigms(tmp_path / "none")
    write(tmp_path / "two.jsonl", good, good | {"sentence_bad": " "})
    with pytest.raises(ValueError, match=r"line 2: field 'sentence_bad' .* it has to be a"):
        read_paradigms(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1}\n\n{"a"', "line 3 is not JSON"),
        (b'{"a": 1}\n[1]\n', r"line 2 is \[1\]; it has to be a JSON object"),
        (b'{"a": "\xff"}', "line 1 is not JSON"),
    ],
)
def test_lines_that_are_no_objects(content, said, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        list(read_records(tmp_path / "a.jsonl"))


def test_a_packed_file_that_is_damaged(tmp_path):
    whole = gzip.compress(b'{"a": 1}\n' * 1000)
    for content in (whole[:-20], b'{"a": 1}\n'):
        (tmp_path / "a.jsonl.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.jsonl\.gz cannot be unpacked"):
            list(read_records(tmp_path / "a.jsonl.gz"))
