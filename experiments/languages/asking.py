"""What a stream knows of a language: its translations, and what the right ones cost it."""

from __future__ import annotations

import dataclasses

import numpy as np
from languages.corpus import Language
from sacrebleu.metrics import CHRF

from hope_jax import Stream

TOKENS = 40  # of a translation at most


@dataclasses.dataclass(frozen=True)
class Known:
    """Of the sentences that are asked.

    Attributes:
      chrf: F-score of character n-grams up to six, over all sentences, 0 to 100 (Popovic 2015).
      loss: nats per token of the right translations.
      translations: what was written.
    """

    chrf: float
    loss: float
    translations: list[str]


def ask(stream: Stream, language: Language) -> Known:
    """Ask for all sentences; the stream is afterwards as it was.

    The lesson is read first, so that every model knows what is wanted, and nothing is learned.
    """
    taught = stream.copy()
    taught.read(language.lesson(), learn=False)
    written, nats = [], []
    for pair in language.asked:
        one = taught.copy()
        one.read(language.question(pair), learn=False)
        written.append(one.answer("", tokens=TOKENS).strip())
        one.read(f" {pair.english}\n", learn=False)
        nats.append(one.surprise().loss_T)
    wanted = [pair.english for pair in language.asked]
    score = CHRF().corpus_score(written, [wanted]).score
    return Known(round(score, 2), round(float(np.concatenate(nats).mean()), 4), written)
