"""Rows: token ids of which the last ones are scored, and what a score says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hope_jax.inference.reading import beginning, encode
from hope_jax.models import LanguageModel


@dataclasses.dataclass(frozen=True)
class Row:
    """What is read from a fresh state, and from where on it is scored.

    Attributes:
      ids_T: int32 token ids, at least one.
      start: tokens from this one on are scored. Where it is 0, nothing has been read before
        the first token, which then costs what a uniform guess does.
    """

    ids_T: np.ndarray
    start: int


@dataclasses.dataclass(frozen=True)
class Score:
    """What the model says of a row.

    Attributes:
      log_probability: of the scored tokens together, in nats.
      greedy: every scored token is the likeliest one where it stands.
      tokens: scored.
      length: tokens of the whole row.
      memory_updates: writes to the memories of the mixers while the row was read.
      level_updates: steps of CMS levels that learn within a text.
    """

    log_probability: float
    greedy: bool
    tokens: int
    length: int
    memory_updates: int
    level_updates: int


def pair_row(model: LanguageModel, tokenizer: Any, context: str, continuation: str) -> Row:
    """A continuation to be scored after a context.

    Both are tokenised together and cut after as many tokens as the context alone has; blanks at
    the end of the context are moved to the continuation, because vocabularies join a blank to
    the word after it. This is what EleutherAI's lm-evaluation-harness does
    (`lm_eval/api/model.py`, `TemplateLM._encode_pair`), so that a token across the cut belongs
    to the context. Where that leaves no token to score, the two are tokenised apart.

    Where the tokenizer has a token that texts begin with, it stands before the context. An
    empty context is that token, or the end-of-text token, as in the harness; without either
    nothing is read, and the first token costs a uniform guess.

    Raises:
      ValueError: the continuation is empty.

    >>> from hope_jax.config import ModelConfig
    >>> from hope_jax.data import ByteTokenizer
    >>> row = pair_row(LanguageModel(ModelConfig()), ByteTokenizer(), "To ", "be")
    >>> row.ids_T.tolist(), row.start
    ([84, 111, 32, 98, 101], 2)
    """
    bare = context.rstrip()
    context, continuation = bare, context[len(bare) :] + continuation
    if not continuation:
        raise ValueError(
            f"after {context[-40:]!r} comes an empty text; nothing is to be scored"
        )
    if not context:
        return text_row(model, tokenizer, continuation)
    before_T = encode(model, tokenizer, context)
    ids_T = encode(model, tokenizer, context + continuation)
    if len(ids_T) <= len(before_T):
        ids_T = np.concatenate([before_T, encode(model, tokenizer, continuation)])
    begin_T = beginning(model, tokenizer)
    return Row(np.concatenate([begin_T, ids_T]), len(begin_T) + len(before_T))


def text_row(model: LanguageModel, tokenizer: Any, text: str | bytes) -> Row:
    """A whole text to be scored, after the token that texts begin with or end with, if any.

    >>> from hope_jax.config import ModelConfig
    >>> from hope_jax.data import ByteTokenizer
    >>> text_row(LanguageModel(ModelConfig(vocab_size=257)), ByteTokenizer(end=True), "a")
    Row(ids_T=array([256,  97], dtype=int32), start=1)
    """
    return begin(tokenizer, encode(model, tokenizer, text))


def begin(tokenizer: Any, ids_T: np.ndarray) -> Row:
    """The same of token ids."""
    known = tokenizer.begin_id, tokenizer.end_id
    before = [index for index in known if index is not None][:1]
    return Row(np.concatenate([np.asarray(before, np.int32), ids_T]), len(before))
