"""BLiMP: which of two sentences is likelier, the right one or the wrong one.

Pairs differ in little, so that whole sentences can be compared (Warstadt et al., 2020, "BLiMP:
The Benchmark of Linguistic Minimal Pairs for English"). Two that are equally likely count a
half. The lm-evaluation-harness puts a blank before each sentence; here there is none.
"""

from __future__ import annotations

from pathlib import Path

from hope_jax.evaluation.choices import share_right
from hope_jax.evaluation.measurement import Measurement, mean, work
from hope_jax.evaluation.records import Record, read_records
from hope_jax.evaluation.rows import text_row
from hope_jax.evaluation.scorer import Scorer
from hope_jax.evaluation.task import Progress, Source, Task, find, first

NAME = "blimp"
FILES = ("blimp",)
FORMAT = (
    'a folder of .jsonl files, one per paradigm, a line per pair, {"sentence_good", '
    '"sentence_bad", "UID"}'
)


def measure_blimp(
    scorer: Scorer, paradigms: dict[str, list[tuple[str, str]]], progress: Progress
) -> Measurement:
    """Accuracy over all pairs, its parts the paradigms.

    Args:
      scorer: of the model.
      paradigms: pairs of a right and a wrong sentence, by name.
      progress: told of sentences.
    """
    names = [name for name, pairs in paradigms.items() for _ in pairs]
    pairs = [pair for of_one in paradigms.values() for pair in of_one]
    row = lambda text: text_row(scorer.model, scorer.tokenizer, text)
    items = [[row(good), row(bad)] for good, bad in pairs]
    progress.start(2 * len(items))
    scores = scorer.score(items, progress.advance)

    def of(task, chosen, parts=()):
        nats = [[score.log_probability for score in pair] for pair in chosen]
        value, error = mean([share_right(pair, 0) for pair in nats])
        read = work([score for pair in chosen for score in pair])
        return Measurement(task, "acc", value, len(chosen), read, error, 0.5, parts)

    by_name: dict[str, list] = {}
    for name, pair in zip(names, scores, strict=True):
        by_name.setdefault(name, []).append(pair)
    parts = tuple(of(f"{NAME}/{name}", chosen) for name, chosen in by_name.items())
    return of(NAME, scores, parts)


def read_paradigms(folder: Path, limit: int | None = None) -> dict[str, list[tuple[str, str]]]:
    """Pairs of sentences by paradigm; `limit` is of each file.

    Raises:
      ValueError: there are none, or a line is not as it should be.
    """
    paradigms: dict[str, list[tuple[str, str]]] = {}
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise ValueError(f"{folder} holds no .jsonl file; put there {FORMAT}")
    for path in files:
        for record in first(list(read_records(path)), limit, path):
            name = record.text("UID") if "UID" in record else path.stem
            pair = _sentence(record, "sentence_good"), _sentence(record, "sentence_bad")
            paradigms.setdefault(name, []).append(pair)
    return paradigms


def _sentence(record: Record, name: str) -> str:
    text = record.text(name)
    if not text.strip():  # nothing would be the likeliest sentence of all
        raise record.wrong(name, "it has to be a sentence")
    return text


def _measure(scorer: Scorer, source: Source, progress: Progress) -> list[Measurement]:
    folder = find(source, NAME, FILES, FORMAT)
    return [measure_blimp(scorer, read_paradigms(folder, source.limit), progress)]


TASK = Task(NAME, FILES, FORMAT, _measure)
