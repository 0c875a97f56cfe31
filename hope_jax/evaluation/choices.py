"""Multiple choice: the answer that the model finds likeliest.

`acc` takes the answer of the highest log probability; `acc_n` that of the highest one per
character, so that long answers are not at a disadvantage. The latter is `acc_norm` of
EleutherAI's lm-evaluation-harness (`lm_eval/api/task.py`: divided by the length of the answer
in characters, without the blank before it). Where several answers are equally likely, and the
right one among them, the question counts as one by their number: a model that knows nothing
then scores what a guess does, whatever the order of the answers. The harness takes the first.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

from hope_jax.evaluation.measurement import Measurement, mean, work
from hope_jax.evaluation.questions import (
    Question,
    arc,
    boolq,
    hellaswag,
    piqa,
    read_questions,
    siqa,
    winogrande,
)
from hope_jax.evaluation.rows import Row, pair_row
from hope_jax.evaluation.scorer import Scorer
from hope_jax.evaluation.task import Progress, Source, Task, find, first

REQUESTS = 'or ready-made requests {"doc_id", "idx", "label", "request": {...}}'
SETS = {
    "piqa": (piqa, '{"goal", "sol1", "sol2", "label": 0 or 1}'),
    "hellaswag": (
        hellaswag,
        '{"ctx" or "ctx_a" and "ctx_b", "endings": [...], "label": 0 to 3, "activity_label"}',
    ),
    "winogrande": (winogrande, '{"sentence", "option1", "option2", "answer": 1 or 2}'),
    "arc_easy": (arc, '{"question", "choices": {"text": [...], "label": [...]}, "answerKey"}'),
    "arc_challenge": (
        arc,
        '{"question", "choices": {"text": [...], "label": [...]}, "answerKey"}',
    ),
    "siqa": (
        siqa,
        '{"context", "question", "answerA", "answerB", "answerC", "label": 1 to 3}',
    ),
    "boolq": (boolq, '{"question", "passage", "answer" or "label": true or false}'),
}


def measure_questions(
    task: str, scorer: Scorer, questions: Sequence[Question], progress: Progress
) -> list[Measurement]:
    """`acc`, and `acc_n` where answers differ in what is scored, of some questions."""
    items = [_rows(scorer, question) for question in questions]
    progress.start(sum(map(len, items)))
    scores = scorer.score(items, progress.advance)
    nats = [[score.log_probability for score in of_item] for of_item in scores]
    values = {"acc": nats}
    if any(len(set(question.continuations)) > 1 for question in questions):
        values["acc_n"] = [
            [value / length for value, length in zip(of_item, lengths(question), strict=True)]
            for of_item, question in zip(nats, questions, strict=True)
        ]
    read = work([score for of_item in scores for score in of_item])
    chance = chance_of(questions)
    result = []
    for metric, of_items in values.items():
        pairs = zip(of_items, questions, strict=True)
        value, error = mean([share_right(found, question.gold) for found, question in pairs])
        result.append(Measurement(task, metric, value, len(questions), read, error, chance))
    return result


def chance_of(questions: Sequence[Question]) -> float:
    """Right answers of who does not read the questions: of a guess, or, where all have the same
    answers, of always giving the one that is right most often.

    >>> yes_or_no = [Question(("Q:",) * 2, (" no", " yes"), gold) for gold in (0, 1, 1)]
    >>> chance_of(yes_or_no) == 2 / 3
    True
    """
    answers = {question.continuations for question in questions}
    if len(answers) == 1 and len(questions) > len(*answers):  # fewer say nothing
        ((_, right),) = Counter(question.gold for question in questions).most_common(1)
        return right / len(questions)
    return sum(1 / len(question.contexts) for question in questions) / len(questions)


def share_right(values: Sequence[float], gold: int) -> float:
    """1 where the right answer has the highest value, 0 where another has, shared in a tie.

    >>> share_right([-3.0, -1.0], 1), share_right([-3.0, -1.0], 0), share_right([-1.0, -1.0], 0)
    (1.0, 0.0, 0.5)
    """
    best = max(values)
    return 1 / values.count(best) if values[gold] == best else 0.0


def lengths(question: Question) -> list[int]:
    """Characters of each answer, without the blank before it; an empty one counts as one."""
    return [max(len(text.removeprefix(" ")), 1) for text in question.continuations]


def _rows(scorer: Scorer, question: Question) -> list[Row]:
    return [
        pair_row(scorer.model, scorer.tokenizer, context, continuation)
        for context, continuation in zip(question.contexts, question.continuations, strict=True)
    ]


def _measure(
    name: str, scorer: Scorer, source: Source, progress: Progress
) -> list[Measurement]:
    task = TASKS[name]
    path = find(source, name, task.files, task.format)
    questions = first(read_questions(path, SETS[name][0]), source.limit, path)
    return measure_questions(name, scorer, questions, progress)


TASKS = {
    name: Task(
        name,
        (f"{name}.jsonl", f"{name}.jsonl.gz"),
        f"a line per question, {fields}, {REQUESTS}",
        functools.partial(_measure, name),
    )
    for name, (_, fields) in SETS.items()
}
