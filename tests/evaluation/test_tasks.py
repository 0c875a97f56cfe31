"""What tasks compute, on a model that gives every token the same probability and on another.

With a uniform model everything can be written down: a text of n bytes has the log probability
-n ln 257 (256 bytes and an end-of-text token).
"""

import gzip
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluation_models import make_scorer, plain_log_probabilities

from hope_jax.evaluation import TASKS, Scorer, Source, Task, average, chosen, pair_row, register
from hope_jax.evaluation.blimp import measure_blimp
from hope_jax.evaluation.choices import measure_questions
from hope_jax.evaluation.lambada import measure_lambada
from hope_jax.evaluation.measurement import Measurement, mean, ratio, work
from hope_jax.evaluation.questions import Question
from hope_jax.evaluation.text import measure_text

GUESS = math.log(257)


@pytest.fixture(scope="module")
def uniform():
    other = make_scorer("attention")
    params = jax.tree.map(jnp.zeros_like, other.params)
    return Scorer(other.model, params, other.tokenizer, batch=4, sizes=(64,))


def question(gold, *answers, context="Q:"):
    return Question((context,) * len(answers), answers, gold)


def test_choices_of_a_uniform_model(uniform, counter):
    """acc: the fewest bytes win. acc_n: ASCII ties, and a character of two bytes loses."""
    questions = [
        question(0, " a", " bcd"),
        question(1, " a", " bcd", " efgh"),
        question(1, " abc", " é"),
        question(0, " abc", " de", " fg"),
    ]
    acc, acc_n = measure_questions("mine", uniform, questions, counter)
    assert (acc.task, acc.metric, acc.value, acc.items) == ("mine", "acc", 0.5, 4)
    assert acc.standard_error == pytest.approx(math.sqrt(0.25 / 3))
    assert acc.chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 3) / 4)
    # per character, the blank costs too: " a" has 2 tokens for 1 character, " efgh" 5 for 4
    assert acc_n.metric == "acc_n" and acc_n.chance == acc.chance
    per_character = [[2, 4 / 3], [2, 4 / 3, 5 / 4], [4 / 3, 3], [4 / 3, 3 / 2, 3 / 2]]
    best = [int(np.argmin(costs)) for costs in per_character]
    gold = [0, 1, 1, 0]
    assert acc_n.value == np.mean([b == g for b, g in zip(best, gold, strict=True)]) == 0.25
    assert (acc.work.rows, acc.work.longest) == (10, 7)
    assert acc.work.scored == 2 + 4 + 2 + 4 + 5 + 4 + 3 + 4 + 3 + 3
    assert acc.work.memory_updates == acc.work.level_updates == 0
    assert counter.done == counter.total == 10


def test_ties_score_what_chance_does(uniform, counter):
    questions = [question(gold, " ab", " cd", " ef") for gold in (0, 1, 2)]
    for one in measure_questions("ties", uniform, questions, counter):
        assert (one.value, one.chance) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_chance_of_the_same_answers_is_that_of_the_commonest(uniform, counter):
    questions = [question(gold, " no", " yes", context=f"{gold}") for gold in (1, 0, 1, 1)]
    for one in measure_questions("same", uniform, questions, counter):
        assert one.chance == 0.75


def test_choices_of_another_model(scorer, counter):
    """From its plain forward pass, also with a context for each answer (WinoGrande)."""
    two = Question(("Ann saw", "The dog saw"), (" it there.",) * 2, 0)
    questions = [question(0, " yes", " no", " both of them"), two]
    right, right_n = [], []
    for one in questions:
        values = []
        for context, answer in zip(one.contexts, one.continuations, strict=True):
            row = pair_row(scorer.model, scorer.tokenizer, context, answer)
            plain_TW = plain_log_probabilities(scorer, row.ids_T)
            own_T = plain_TW[np.arange(len(row.ids_T)), row.ids_T]
            values.append(own_T[row.start :].sum())
        right.append(np.argmax(values) == one.gold)
        sizes = [len(answer.strip()) for answer in one.continuations]
        right_n.append(np.argmax(np.divide(values, sizes)) == one.gold)
    acc, acc_n = measure_questions("mine", scorer, questions, counter)
    assert (acc.value, acc_n.value) == (np.mean(right), np.mean(right_n))
    only = measure_questions("mine", scorer, [two], counter)
    assert [one.metric for one in only] == [
        "acc"
    ]  # one continuation has no length to divide by


def test_lambada_of_a_uniform_model(uniform, counter):
    acc, perplexity = measure_lambada(uniform, [("a b", " c"), ("a b", " cde")], counter)
    assert (acc.value, acc.items, acc.standard_error) == (0, 2, 0)
    assert acc.chance == pytest.approx((257**-2 + 257**-4) / 2)
    assert perplexity.value == pytest.approx(math.exp(3 * GUESS), rel=1e-5)
    # loss of 2 and 4 guesses: the standard error of their mean is one guess
    assert perplexity.standard_error == pytest.approx(perplexity.value * GUESS, rel=1e-5)


def test_blimp_of_a_uniform_model(uniform, counter):
    pairs = {"short": [("a", "bcd"), ("ab", "c")], "equal": [("ab", "cd")] * 2}
    whole = measure_blimp(uniform, pairs, counter)
    assert (whole.value, whole.chance, whole.items) == (0.5, 0.5, 4)
    assert [(p.task, p.value, p.items) for p in whole.parts] == [
        ("blimp/short", 0.5, 2),
        ("blimp/equal", 0.5, 2),
    ]
    assert whole.standard_error == pytest.approx(math.sqrt(0.5 / 3 / 4))
    assert [p.standard_error for p in whole.parts] == [0.5, 0]
    assert whole.work.scored == 1 + 3 + 2 + 1 + 8 and whole.work.tokens == 15 + 8


def test_text_of_a_uniform_model(uniform, tmp_path, counter):
    (tmp_path / "a.txt").write_text("one two\nthree" * 20)
    (tmp_path / "b.jsonl").write_text('{"text": "four"}\n{"text": ""}\n{"text": "fünf"}\n')
    found = measure_text(uniform, [tmp_path / "a.txt", tmp_path / "b.jsonl"], Source(), counter)
    per_token, per_byte, per_word = found
    assert [one.metric for one in found] == ["perplexity", "bits_per_byte", "word_perplexity"]
    assert per_token.value == pytest.approx(257, rel=1e-5)
    assert per_byte.value == pytest.approx(math.log2(257), rel=1e-6)
    words = len(("one two\nthree" * 20).split()) + 2
    assert per_word.value == pytest.approx(math.exp((260 + 4 + 5) * GUESS / words), rel=1e-4)
    assert per_token.items == 3 and per_token.work.longest == 261
    assert per_byte.standard_error == pytest.approx(0, abs=1e-4)


def test_documents_are_read_one_for_itself(scorer, tmp_path, counter):
    """Together, and each as if alone; the limit counts lines."""
    texts = ["To be, or not to be.", "Who?", "The rest is silence. " * 5]
    lines = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    alone = []
    for number, line in enumerate(lines):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(line)
        found = measure_text(scorer, [path], Source(), counter)[0]
        alone.append(math.log(found.value) * len(texts[number]))
    together = measure_text(scorer, [tmp_path / "all.jsonl"], Source(), counter)[0]
    want = sum(alone) / sum(map(len, texts))
    assert math.log(together.value) == pytest.approx(want, rel=1e-4)
    limited = measure_text(scorer, [tmp_path / "all.jsonl"], Source(limit=2), counter)[0]
    assert (together.items, limited.items) == (3, 2)


@pytest.mark.parametrize("window", [None, 50])
def test_text_in_blocks_is_the_text(scorer, tmp_path, counter, monkeypatch, window):
    text = "To be, or not to be, that is the question:\n" * 5
    (tmp_path / "a.txt").write_text(text)
    source = Source(window=window)
    whole = measure_text(scorer, [tmp_path / "a.txt"], source, counter)
    monkeypatch.setattr("hope_jax.evaluation.text.blocks.__defaults__", (37,))
    parts = measure_text(scorer, [tmp_path / "a.txt"], source, counter)
    for one, other in zip(whole, parts, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-4) and one.work == other.work
    assert whole[0].work.longest == (window or len(text)) + 1
    assert whole[0].work.scored == len(text)
    [score] = scorer.score([[pair_row(scorer.model, scorer.tokenizer, "", text)]])[0]
    if window is None:
        nats = math.log(whole[0].value) * len(text)
        assert nats == pytest.approx(-score.log_probability, rel=1e-4)


def test_a_text_that_is_empty(scorer, tmp_path, counter):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="empty"):
        measure_text(scorer, [tmp_path / "a.txt"], Source(), counter)
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"a\.jsonl: there is no text"):
        measure_text(scorer, [tmp_path / "a.jsonl"], Source(), counter)


def test_standard_errors():
    values = np.array([0.0, 1, 1, 0, 1])
    assert mean(values.tolist()) == (0.6, pytest.approx(values.std(ddof=1) / math.sqrt(5)))
    tops, bottoms = np.array([3.0, 5, 4]), np.array([1.0, 2, 2])
    value, error = ratio(tops.tolist(), bottoms.tolist())
    residuals = tops - value * bottoms
    assert value == 12 / 5
    assert error == pytest.approx(math.sqrt((residuals**2).sum() / 2 * 3) / 5)


def test_the_average_of_the_paper():
    columns = [
        Measurement(name, metric, value, 10, work([]), 0.1, 0.25)
        for value in (0.2, 0.9)
        for name, metric in [
            ("lambada", "acc"),
            ("piqa", "acc"),
            ("hellaswag", "acc_n"),
            ("winogrande", "acc"),
            ("arc_easy", "acc"),
            ("arc_challenge", "acc_n"),
            ("siqa", "acc"),
            ("boolq", "acc"),
        ]
    ][:8]
    others = [Measurement("arc_easy", "acc_n", 0.9, 10, work([]), 0.1, 0.25)]
    found = average(columns + others)
    assert (found.value, found.chance, found.items) == (pytest.approx(0.2), 0.25, 80)
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(8))
    assert average(columns[1:]) is None


def test_tasks_by_name(monkeypatch):
    assert [task.name for task in chosen(["piqa", "text", "piqa"])] == ["piqa", "text"]
    with pytest.raises(ValueError, match="no task 'pica'; choose from text, lambada"):
        chosen(["pica"])
    monkeypatch.setattr("hope_jax.evaluation.registry.TASKS", dict(TASKS))
    register(Task("recall", (), "", lambda *_: []))
    assert chosen(["recall"])[0].name == "recall"
    with pytest.raises(ValueError, match="'recall' already"):
        register(Task("recall", (), "", lambda *_: []))


def test_tasks_read_files_of_a_folder(scorer, tmp_path, counter):
    """The published form and ready-made requests give the same figures."""
    rows = [
        {"goal": "Sit.", "sol1": "on a chair", "sol2": "on a cat", "label": 0},
        {"goal": "Eat.", "sol1": "a stone", "sol2": "an apple", "label": 1},
        {"goal": "Run.", "sol1": "fast", "sol2": "never", "label": 0},
    ]
    (tmp_path / "piqa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    [task] = chosen(["piqa"])
    published = task.measure(scorer, Source(tmp_path), counter)
    assert published[0].items == 3
    assert task.measure(scorer, Source(tmp_path, limit=2), counter)[0].items == 2
    (tmp_path / "piqa.jsonl").unlink()
    with gzip.open(tmp_path / "piqa.jsonl.gz", "wt") as file:
        for twin in (0, 1_000_000):
            for number, row in enumerate(rows):
                for index in (1, 0):
                    context = "Answer:" if twin else f"Question: {row['goal']}\nAnswer:"
                    request = {"context": context, "continuation": f" {row[f'sol{index + 1}']}"}
                    line = {"doc_id": twin + number, "idx": index, "label": row["label"]}
                    file.write(json.dumps(line | {"request": request}) + "\n")
    assert task.measure(scorer, Source(tmp_path), counter) == published


def test_a_file_that_is_not_there(scorer, tmp_path, counter):
    for name in ("piqa", "lambada", "blimp", "text"):
        [task] = chosen([name])
        with pytest.raises(ValueError, match=f"task {name} finds no file in .*{task.files[0]}"):
            task.measure(scorer, Source(tmp_path), counter)
    with pytest.raises(ValueError, match=r"give --data DIR with piqa\.jsonl"):
        chosen(["piqa"])[0].measure(scorer, Source(), counter)
