"""Ready-made requests: a context and a continuation for each answer.

A line is `{"doc_id", "idx", "label", "doc", "request": {"context", "continuation"}}`. The lines
of one question have its `doc_id`, `idx` counts its answers, and `label` is the right one's. Ids
of `ANSWER_ONLY` and more are twins without the question, for scores relative to those; they are
dropped. AI2's OLMo evaluation stores its sets like this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from hope_jax.evaluation.records import Record

ANSWER_ONLY = 1_000_000


@dataclasses.dataclass(frozen=True)
class Request:
    """One line.

    Attributes:
      question: its `doc_id`.
      number: of the answer in it.
      context: what is read first.
      continuation: what is scored.
      record: the line itself.
    """

    question: int
    number: int
    context: str
    continuation: str
    record: Record


def is_request(record: Record) -> bool:
    """Whether a line is in this form, and not in that of a published set."""
    return "request" in record


def read_requests(records: Iterable[Record]) -> list[list[Request]]:
    """Requests by question, answers in order.

    Raises:
      ValueError: a field is missing, or answers of a question are.
    """
    questions: dict[int, list[Request]] = {}
    for record in records:
        question, number = (_number(record, name) for name in ("doc_id", "idx"))
        if question >= ANSWER_ONLY:
            continue
        texts = record.inner("request")
        request = Request(
            question, number, texts.text("context"), texts.text("continuation"), record
        )
        questions.setdefault(question, []).append(request)
    for requests in questions.values():
        requests.sort(key=lambda request: request.number)
        for place, request in enumerate(requests):
            if request.number != place:
                raise request.record.wrong(
                    "idx", f"question {request.question} has no answer {place}, or two of one"
                )
    return list(questions.values())


def _number(record: Record, name: str) -> int:
    value = record.values.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise record.wrong(name, "it has to be a whole number")
    return value
