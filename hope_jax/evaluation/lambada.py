"""LAMBADA: the last word of a passage, given all of it (Paperno et al., 2016).

`acc`: every token of the word is the likeliest one; `perplexity`: of the word, the exponential
of its mean loss over passages, whatever its number of tokens. Both as EleutherAI's
lm-evaluation-harness has them (`lm_eval/tasks/lambada`). The word is what follows the last
blank. Chance is that of a guess among all tokens, for each token of the word.
"""

from __future__ import annotations

from pathlib import Path

from hope_jax.evaluation.measurement import Measurement, exp, mean, work
from hope_jax.evaluation.records import Record, read_records
from hope_jax.evaluation.requests import is_request, read_requests
from hope_jax.evaluation.rows import pair_row
from hope_jax.evaluation.scorer import Scorer
from hope_jax.evaluation.task import Progress, Source, Task, find, first

NAME = "lambada"
FILES = ("lambada.jsonl", "lambada.jsonl.gz")
FORMAT = 'a line per passage, {"text"}, or ready-made requests {"doc_id", "idx", "request"}'


def measure_lambada(
    scorer: Scorer, passages: list[tuple[str, str]], progress: Progress
) -> list[Measurement]:
    """Figures of passages, each what comes before the word, and the word with its blank."""
    rows = [pair_row(scorer.model, scorer.tokenizer, *passage) for passage in passages]
    progress.start(len(rows))
    scores = [score for [score] in scorer.score([[row] for row in rows], progress.advance)]
    read, count = work(scores), len(scores)
    accuracy, error = mean([float(score.greedy) for score in scores])
    chance, _ = mean([scorer.tokenizer.vocab_size**-score.tokens for score in scores])
    nats, spread = mean([-score.log_probability for score in scores])
    perplexity, spread = exp(nats, spread)
    return [
        Measurement(NAME, "acc", accuracy, count, read, error, chance),
        Measurement(NAME, "perplexity", perplexity, count, read, spread),
    ]


def read_passages(path: Path) -> list[tuple[str, str]]:
    """Passages of a file, before the last word and from its blank on.

    Raises:
      ValueError: a line is not as it should be.
    """
    records = list(read_records(path))
    if records and is_request(records[0]):
        requests = [r for of_one in read_requests(records) for r in of_one]
        return [(request.context, request.continuation) for request in requests]
    return [_passage(record) for record in records]


def _passage(record: Record) -> tuple[str, str]:
    before, blank, word = record.text("text").rpartition(" ")
    if not before.strip() or not word:
        raise record.wrong("text", "it has to be words, the last after a blank")
    return before, blank + word


def _measure(scorer: Scorer, source: Source, progress: Progress) -> list[Measurement]:
    path = find(source, NAME, FILES, FORMAT)
    return measure_lambada(scorer, first(read_passages(path), source.limit, path), progress)


TASK = Task(NAME, FILES, FORMAT, _measure)
