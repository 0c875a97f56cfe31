"""Multiple-choice questions from published sets: from a line of their files to texts to score.

The texts are those of EleutherAI's lm-evaluation-harness 0.4 (`lm_eval/tasks`), without
examples before the question, so that figures can be compared.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from hope_jax.evaluation.records import Record, read_records
from hope_jax.evaluation.requests import Request, is_request, read_requests


@dataclasses.dataclass(frozen=True)
class Question:
    """A question and its answers.

    Attributes:
      contexts: what is read before each answer.
      continuations: what is scored; begins with a blank.
      gold: number of the right answer.
    """

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int


def piqa(record: Record) -> Question:
    """Physical commonsense, two solutions of a goal (Bisk et al., 2020)."""
    answers = record.text("sol1"), record.text("sol2")
    context = f"Question: {record.text('goal')}\nAnswer:"
    return _question(context, answers, record.one_of("label", 0, 1))


def hellaswag(record: Record) -> Question:
    """How a description goes on, four endings (Zellers et al., 2019)."""
    if "ctx_a" in record and "ctx_b" in record:
        context = f"{record.text('ctx_a')} {record.text('ctx_b').capitalize()}"
    else:
        context = record.text("ctx")
    if "activity_label" in record:
        context = f"{record.text('activity_label')}: {context}"
    endings = tuple(map(_clean, record.texts("endings")))
    return _question(_clean(context), endings, record.one_of("label", *range(len(endings))))


def winogrande(record: Record) -> Question:
    """Whom a word means (Sakaguchi et al., 2020).

    Partial scoring (Trinh and Le, 2018): each option is put in the gap, and what follows the
    gap is scored after it.
    """
    before, gap, after = record.text("sentence").partition("_")
    if not gap or not after.strip():
        raise record.wrong("sentence", "it has to have a gap, written as _, and words after it")
    contexts = tuple(before + record.text(name) for name in ("option1", "option2"))
    return Question(contexts, (f" {after.strip()}",) * 2, record.one_of("answer", 1, 2))


def arc(record: Record) -> Question:
    """Science exams of schools, three to five answers (Clark et al., 2018)."""
    if isinstance(record.values.get("question"), dict):  # as AI2 published it
        inner = record.inner("question")
        stem, choices = inner.text("stem"), inner.values.get("choices")
        if not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices):
            raise inner.wrong("choices", "it has to be a list of objects with text and label")
        columns = {name: [c.get(name) for c in choices] for name in ("text", "label")}
        answers = Record(columns, inner.place)
    else:
        stem, answers = record.text("question"), record.inner("choices")
    texts, labels = answers.texts("text"), answers.texts("label")
    if len(texts) != len(labels):
        raise answers.wrong("label", f"it has to have a label for each of {len(texts)} texts")
    return _question(f"Question: {stem}\nAnswer:", texts, record.one_of("answerKey", *labels))


def siqa(record: Record) -> Question:
    """What people do and feel, three answers (Sap et al., 2019)."""
    answers = tuple(record.text(f"answer{letter}") for letter in "ABC")
    context = f"Q: {record.text('context')} {record.text('question')}\nA:"
    return _question(context, answers, record.one_of("label", 1, 2, 3))


def boolq(record: Record) -> Question:
    """Yes or no after a passage (Clark et al., 2019)."""
    context = f"{record.text('passage')}\nQuestion: {record.text('question')}?\nAnswer:"
    name = "answer" if "answer" in record else "label"
    gold = record.one_of(name, "false", "true", 0, 1) % 2
    return _question(context, ("no", "yes"), gold)


def read_questions(path: Path, form: Callable[[Record], Question]) -> list[Question]:
    """Questions of a file, in the published form or as ready-made requests.

    Args:
      path: JSON lines, packed where the name ends in .gz.
      form: one of the functions above.

    Raises:
      ValueError: a line is not as it should be.
    """
    records = list(read_records(path))
    if records and is_request(records[0]):
        return [_of_requests(requests) for requests in read_requests(records)]
    return [form(record) for record in records]


def _of_requests(requests: list[Request]) -> Question:
    record = requests[0].record
    if len(requests) < 2:
        raise record.wrong("idx", "a question has to have two answers or more")
    return Question(
        tuple(request.context for request in requests),
        tuple(request.continuation for request in requests),
        record.one_of("label", *range(len(requests))),
    )


def _question(context: str, answers: tuple[str, ...], gold: int) -> Question:
    return Question((context,) * len(answers), tuple(f" {text}" for text in answers), gold)


def _clean(text: str) -> str:
    """Without the marks that WikiHow left in HellaSwag.

    >>> _clean("[header] How to nap [title] Lie down.  Sleep.")
    ' How to nap. Lie down. Sleep.'
    """
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")
